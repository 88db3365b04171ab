"""Several studies at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
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
        """As ``Tables.table``; a column must be known to one of the studies at least; ``study`` comes with all of
        them, or if asked for."""
        known = [set(tables.rows(name).schema.names) for tables in self.each] if columns is not None else []
        for column in columns or ():
            if not any(column in names for names in known) and column != "study":
                raise UserError(f"{self.place}: no column called {column!r} in {name}")
        frames = []
        for place, tables in enumerate(self.each):
            own = None if columns is None else [column for column in columns if column in known[place]]
            frame = tables.table(name, own, filter)
            frames.append(frame.assign(study=tables.name) if columns is None or "study" in columns else frame)
        frame = pd.concat(frames, ignore_index=True)
        text = [axis for axis in self.axes if axis in frame and not pd.api.types.is_numeric_dtype(frame[axis])]
        return frame.astype(dict.fromkeys(text, "category"))

    def schema(self, name: str) -> pa.Schema:
        """The columns of one table in any of the studies."""
        return pa.unify_schemas([tables.schema(name) for tables in self.each], promote_options="permissive")

    def of(self, trials: pd.DataFrame) -> Studies:
        """The same with those trials only, given as rows of ``trials``; studies that have none of them are left out."""
        there = [tables for tables in self.each if (trials["study"] == tables.name).any()]
        return Studies(tuple(tables.of(trials[trials["study"] == tables.name]) for tables in there))


def one_study(tables: Frames, figure: str) -> Tables:
    """The study that ``tables`` are, for a figure that shows one. Raises UserError for several."""
    if isinstance(tables, Tables):
        return tables
    assert isinstance(tables, Studies)
    if len(tables.each) > 1:
        raise UserError(f"{tables.place}: {figure} shows one study; pick one by "
                        f'analysis.select(..., {{"study": "{tables.each[0].name}"}})')
    return tables.each[0]


def load_studies(*paths: str | os.PathLike[str]) -> Studies:
    """Open several studies' results folders as one. Raises UserError as ``load`` does, and for two of one name."""
    each = tuple(load(path) for path in paths)
    names = [tables.name for tables in each]
    for tables in each:
        if names.count(tables.name) > 1:
            raise UserError(f"{tables.place}: two results folders are called {tables.name}; rename one")
    return Studies(each)
