"""Trials that never got to the moment at which a claim looks, and whether they could carry its verdict.

What they would have shown is unknown. A verdict that stands whether all of them would have shown the least or the
greatest of the numbers seen does not rest on their absence (the bounds of Manski 1990, on the range observed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from analysis.estimates import Estimate, Region
from trials.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Frames


def said(tables: Frames, rows: pd.DataFrame, over: str) -> list[str]:
    """How many trials ``observations`` left out of ``rows`` since they never got to the moment or were not measured
    near it, and at which values of ``over``; nothing where there are none."""
    ids = rows.attrs.get("absent", ())
    if not ids:
        return []
    what = f"{len(ids)} {'trials' if len(ids) > 1 else 'trial'} left out, never there"
    if over not in tables.trials:
        return [what]
    counts = tables.trials.loc[tables.trials["trial_id"].isin(ids), over].value_counts().sort_index()
    return [f"{what}: {over} {', '.join(f'{value} ({count})' for value, count in counts.items())}"]


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
    known = set(observations(tables, {"diverged"}).columns) | set(tables.trials.columns)
    if not set(rows.columns) <= known | {y, "layer", "because"}:
        return []  # where they stand is not known either
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
