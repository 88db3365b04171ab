"""Several studies at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow.compute as pc

from analysis.tables import Frames, Tables, load
from trials.errors import UserError


@dataclass(frozen=True)
class Studies(Frames):
    """Studies as one: their tables below each other, with a column ``study`` that is an axis too.

    A column that one of them lacks is null in its rows.
    """

    each: tuple[Tables, ...]

    @property
    def place(self) -> str:  # type: ignore[override]
        return ", ".join(tables.place for tables in self.each)

    @property
    def name(self) -> str:
        return ", ".join(tables.name for tables in self.each)

    @property
    def axes(self) -> list[str]:
        return list(dict.fromkeys(["study", *(axis for tables in self.each for axis in tables.axes)]))

    def table(self, name: str, columns: Sequence[str] | None = None,
              filter: pc.Expression | None = None) -> pd.DataFrame:
        """As ``Tables.table``; a column must be known to one of the studies at least, ``study`` always comes."""
        known = [set(tables.rows(name).schema.names) for tables in self.each] if columns is not None else []
        for column in columns or ():
            if not any(column in names for names in known) and column != "study":
                raise UserError(f"{self.place}: no column called {column!r} in {name}")
        frames = []
        for place, tables in enumerate(self.each):
            own = None if columns is None else [column for column in columns if column in known[place]]
            frames.append(tables.table(name, own, filter).assign(study=tables.name))
        frame = pd.concat(frames, ignore_index=True)
        text = [axis for axis in self.axes if axis in frame and not pd.api.types.is_numeric_dtype(frame[axis])]
        return frame.astype(dict.fromkeys(text, "category"))


def load_studies(*paths: str | os.PathLike[str]) -> Studies:
    """Open several studies' results folders as one. Raises UserError as ``load`` does, and for two of one name."""
    each = tuple(load(path) for path in paths)
    names = [tables.name for tables in each]
    for tables in each:
        if names.count(tables.name) > 1:
            raise UserError(f"{tables.place}: two results folders are called {tables.name}; rename one")
    return Studies(each)
