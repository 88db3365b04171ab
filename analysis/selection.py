"""Some of a study's trials: those whose configuration has given values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from analysis.figures.style import is_numeric, label, plain, short
from analysis.tables import Frames
from trials.errors import UserError, did_you_mean
from trials.records import COLUMNS

F = TypeVar("F", bound=Frames)  # one study's tables, or several studies'

Where = Mapping[str, Any]  # a column, or an end of its path in a trial, and the value, or a list of values, that it has


def select(tables: F, where: Where | None) -> F:
    """The tables with those trials only that have one of the values wanted of each column: {"lr": 0.1, "seed": [0, 1]}.

    ``study`` is a column of several studies. A number may be given as figures write it, with three digits. Raises
    UserError for a column that ``trials`` lacks, and a value that no trial has.
    """
    if not where:
        return tables
    for name in where:
        if name not in tables.trials and any(name in [column.name for column in COLUMNS[table]]
                                             for table in ("steps", "layers")):
            raise UserError(f"{tables.place}: {name} is no column of trials, by which trials are picked; "
                            f"{'give a figure its layer=' if name == 'layer' else 'pick rows of observations by it'}")
    return cast(F, tables.of(select_rows(tables.trials, where, tables.place)))


def select_rows(rows: pd.DataFrame, where: Where | None, place: str) -> pd.DataFrame:
    """The same of a DataFrame."""
    for name, wanted in (where or {}).items():
        values = rows[column_called(name, rows.columns, place)]
        if isinstance(wanted, Mapping):
            raise UserError(f"{place}: where takes a value of {name} or a list of them, got {dict(wanted)}")
        if is_numeric(values) and (texts := [text for text in _listed(wanted) if isinstance(text, str)]):
            raise UserError(f"{place}: {name} has numbers, and {texts[0]!r} is text; give a number, without quotes")
        chosen = np.logical_or.reduce([_equal(values, value) for value in _listed(wanted)])
        if not chosen.any():
            known = sorted(values.dropna().unique())
            there = ", ".join(map(plain, known[:12])) + (", ..." if len(known) > 12 else "")
            raise UserError(f"{place}: no trial has {name} {' or '.join(map(plain, _listed(wanted)))}"
                            f"{' beside the rest of where' if len(where or {}) > 1 else ''}; there is: {there}")
        rows = rows[chosen]
    return rows


def said(where: Where | None) -> str:
    """What ``where`` keeps, for the note of a figure: `` Only those with learning rate 0.1.``, or nothing."""
    parts = [f"{label(name, unit=False)} {' or '.join(map(short, _listed(wanted)))}"
             for name, wanted in (where or {}).items()]
    return f" Only those with {', '.join(parts)}." if parts else ""


def column_called(name: str, columns: Collection[str], place: str, what: str = "column") -> str:
    """The column that a study calls ``name``: itself, or an end of its path such as ``model.width`` or ``width``."""
    flat = name.removeprefix("optimizer.").removeprefix("knobs.").replace(".", "_")
    for found in ([name], [flat], [column for column in columns if column.endswith(f"_{flat}")]):
        if len(found) == 1 and found[0] in columns:
            return found[0]
    raise UserError(f"{place}: no {what} called {name!r}; {did_you_mean(name, columns)}")


def _listed(wanted: Any) -> list[Any]:
    return list(wanted) if isinstance(wanted, (list, tuple, set, np.ndarray, pd.Series)) else [wanted]


def _equal(values: pd.Series, value: Any) -> np.ndarray:
    exact: np.ndarray = (values == value).to_numpy(bool)
    if exact.any() or not is_numeric(values) or not isinstance(value, (int, float, np.number)):
        return exact
    rounded: np.ndarray = (values.map(lambda found: plain(float(found))) == plain(float(value))).to_numpy(bool)
    return rounded
