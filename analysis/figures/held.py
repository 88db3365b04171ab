"""Which trials a figure of one axis shows: those that agree in the other axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.figures.style import label, short


def pick(layers: pd.DataFrame, axis: str, others: list[str], count: int) -> tuple[pd.DataFrame, dict[str, object]]:
    """(Rows that differ in ``axis`` only, ``count`` of them evenly spread; the values of ``others`` they share): the
    first combination of these that has most values of the axis with a trial that did not end ``at_chance``, where the
    rows have this column. Where they have a ``phase``, as many different ones are among them as can be."""
    fixed: dict[str, object] = {}
    if others:
        sound = layers[axis].mask(layers["at_chance"]) if "at_chance" in layers else layers[axis]
        values = sound.groupby([layers[name] for name in others], dropna=False, observed=True).transform("nunique")
        first = layers[values == values.max()].sort_values(others).iloc[0]
        fixed = {name: first[name] for name in others}
        for name, value in fixed.items():
            layers = layers[layers[name].isna() if pd.isna(value) else layers[name] == value]
    rows = layers.sort_values(axis)
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)).tolist()
    return rows.iloc[_varied(places, rows["phase"].tolist()) if "phase" in rows else places], fixed


def _varied(places: list[int], phases: Sequence[object]) -> list[int]:
    """The places, with those between the ends whose phase is shown twice replaced by the nearest of a phase that is
    not."""
    for place, phase in enumerate(phases):
        shown = [phases[other] for other in places]
        spare = [other for other in places[1:-1] if shown.count(phases[other]) > 1]
        if phase is not None and phase not in shown and spare:
            places = sorted({*places, place} - {min(spare, key=lambda other: abs(other - place))})
    return places


def first_cells(rows: pd.DataFrame, others: list[str]) -> pd.DataFrame:
    """The rows of each study that have the values of ``others`` that come first there."""
    firsts = []
    for _, of in rows.groupby("study", observed=True):
        numbers = of.groupby(others, dropna=False, observed=True).ngroup() if others else pd.Series(0, of.index)
        firsts.append(of[numbers == numbers.min()])
    return pd.concat(firsts)


def held_in_each(rows: pd.DataFrame, others: list[str]) -> str:
    """``one: lr 0.1; other: lr 0.2``, of ``first_cells``."""
    return "; ".join(f"{row['study']}: " + ", ".join(f"{label(name, unit=False)} {short(row[name])}" for name in others
                                                     if pd.notna(row[name]))
                     for row in rows.drop_duplicates("study").to_dict("records"))
