"""Trials that a claim's rows lack, or that ended at chance; whether those that never got to the moment at which it
looks could carry its verdict; and values that it is about and no trial has.

What these would have shown is unknown. A verdict that stands whether all of them would have shown the least or the
greatest of the numbers seen does not rest on their absence (the bounds of Manski 1990, on the range observed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.estimates import Estimate, Region
from analysis.versions import mixed
from trials.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Frames


def said(tables: Frames, rows: pd.DataFrame, *over: str) -> list[str]:
    """What there is to say of the trials behind ``rows`` of ``observations``: how well the moment is the same in all;
    how many are not among them, since they never got to it (or were not measured near it) or diverged, and how many
    ended at chance, at which values of the first of ``over``; which other axes have several values at one of
    ``over``; and whether they ran with several versions of a user's code or data."""
    trials = tables.trials.set_index("trial_id")
    words = [control] if (control := rows.attrs.get("control")) else []
    for key, what in (("absent", "left out, never there"), ("diverged", "left out, diverged"),
                      ("at_chance", "at chance, and counted")):
        if ids := rows.attrs.get(key, ()):
            line = f"{len(ids)} {'trials' if len(ids) > 1 else 'trial'} {what}"
            if over[0] in trials:
                counts = trials.loc[list(ids), over[0]].value_counts().sort_index()
                line += f": {over[0]} {', '.join(f'{_short(value)} ({count})' for value, count in counts.items())}"
            words.append(line)
    if set(over) <= {*rows} - {"step"}:
        here = rows[["trial_id", *over]].merge(tables.trials[["trial_id", *(
            axis for axis in tables.axes if axis not in (*over, "seed"))]], on="trial_id")
        several = here.drop(columns="trial_id").groupby(list(over), observed=True).nunique().max()
        pools = [f"{axis} ({here[axis].nunique()} values)" for axis in several.index[several > 1]]
        words += [f"pools {', '.join(pools)}"] if pools else []
    return words + mixed(trials.loc[rows["trial_id"].unique()])


def untried(tables: Frames, where: Mapping[str, Sequence[Any]]) -> list[str]:
    """The values of ``where`` that no trial of the tables has, of swept axes and of layers: a line for each column. One
    that was taken out of the design, or has not run yet, is among them; one whose trials all diverged is not."""
    from analysis.observe import named

    lines = []
    for name in [name for name in where if name in tables.axes or name == "layer"]:
        found = list((tables.layers if name == "layer" else tables.trials)[name].dropna().unique())
        if lacking := [str(value) for value in where[name] if not named(value, found)]:
            lines.append(f"no trial here has {name} {' or '.join(lacking)}, which it is about")
    return lines


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def extremes(values: pd.Series) -> dict[str, float]:
    """The least and the greatest number seen, by what they are called."""
    return {"the least seen": float(values.min()), "the greatest seen": float(values.max())}


def doubts(tables: Frames, rows: pd.DataFrame, y: str, ends: Mapping[str, Any], expect: Mapping[str, Region],
           estimates: Mapping[str, Estimate], refit: Callable[[pd.DataFrame], Mapping[str, Estimate]]) -> list[str]:
    """What an answer would be if the absent trials had one of the values ``ends`` of ``y`` (by what they are called);
    nothing where no number expected is judged otherwise."""
    import pandas as pd

    from analysis.observe import observations

    ids = rows.attrs.get("absent", ())
    if not ids:
        return []
    known = {*tables.axes, "trial_id", "seed", "configuration", "status", "diverged", "lr_per_batch"}
    if not set(rows.columns) <= known | {y, "layer", "because"}:
        return []  # where they stand is not known either, such as what they would have measured there
    lost = observations(tables, set(rows.columns) & known)
    lost = lost[lost["trial_id"].isin(ids)]
    if "layer" in rows:
        lost = lost.merge(rows[["layer"]].drop_duplicates(), how="cross")
    for called, value in ends.items():
        try:
            other = refit(pd.concat([rows, lost.assign(**{y: value})], ignore_index=True))
        except UserError:
            continue
        for name, region in expect.items():
            if region.judge(other[name]) != region.judge(estimates[name]):
                return [f"{len(ids)} trials that were never there could carry it: {name} {other[name]} if theirs were "
                        f"{called}"]
    return []
