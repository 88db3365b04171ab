"""Whether phases come in a given order, along an axis of the study or in the course of training.

A phase counts by its place in the order. Along an axis, means over the replicates at each value are ranked, by the
rank correlation of ``trend``; in training each trial has a rank correlation with the steps of its own, and
configurations are what varies by chance: labels of one trial at neighbouring steps are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from analysis.estimates import LEVEL, Estimate
from analysis.laws.trend import FEWEST, spearman, trend
from analysis.phase_names import PHASES
from trials.errors import UserError

FEWEST_RUNS = 6  # five of them have the same sign by chance in 1 case of 16
NOTHING = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Walk:
    """Labels along ``x``, against ``order``.

    ``estimates`` has ``rank_correlation``, between x and the place in the order: NaN where all labels are the same
    phase. ``data`` has a row for each x: x, the commonest ``phase``, how many have it (``agree``) and ``n`` labels.
    ``rows`` are all rows that were given, x and phase among their columns. ``left_out`` counts those without a label
    (key "no label") or with one that is not in the order. ``backward`` names pairs of x at which every replicate is
    against the order; ``kept`` is the share of steps from one x to the next, or of runs, that never go against it.
    """

    x: str
    order: tuple[str, ...]
    estimates: Mapping[str, Estimate]
    data: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    left_out: Mapping[str, int]
    backward: tuple[tuple[float, float], ...]
    kept: float
    method: str

    @property
    def n(self) -> int:
        """How many labels are in the order."""
        return int(self.data["n"].sum())

    @property
    def seen(self) -> tuple[str, ...]:
        """The phases that are visited, in the order: those with more labels than any other at some x; in training those
        that two trials reach (one, where it is the only one)."""
        inside = self.rows[self.rows["phase"].isin(self.order)]
        if self.x == "step":
            trials = inside.groupby("phase")["trial_id"].nunique()
            found = set(trials[trials >= min(2, inside["trial_id"].nunique())].index)
        else:
            counts = inside.groupby([self.x, "phase"]).size().unstack(fill_value=0)
            most = counts.eq(counts.max(axis=1), axis=0)
            found = set(most.columns[most[most.sum(axis=1) == 1].any()])
        return tuple(phase for phase in self.order if phase in found)

    def __str__(self) -> str:
        """Where each phase is the commonest: ``bulk+spikes at 4 to 128 (17 of 18), random-like at 256 (2 of 3)``; in
        training when it is first seen: ``bulk+spikes from 562 on (median of 18 of 30 trials)``."""
        words = []
        if self.x == "step":
            first = self.rows.groupby(["phase", "trial_id"])["step"].min()
            trials = self.rows["trial_id"].nunique()
            return ", ".join(f"{phase} from {first[phase].median():g} on (median of {len(first[phase])} of {trials} "
                             "trials)" for phase in self.order if phase in first.index)
        for phase, group in groupby(self.data.to_dict("records"), key=lambda row: row["phase"]):
            rows = list(group)
            first, last = rows[0][self.x], rows[-1][self.x]
            where = f"{first:g}" if len(rows) == 1 else f"{first:g} to {last:g}"
            words.append(f"{phase} at {where} ({sum(row['agree'] for row in rows)} of {sum(row['n'] for row in rows)})")
        return ", ".join(words)


def walk(rows: pd.DataFrame, x: str, order: Sequence[str], *, level: float = LEVEL) -> Walk:
    """The column ``phase`` of ``rows`` along the column ``x``. Raises UserError where fewer than 5 values of x have
    labels in the order: no walk can be told from chance there, nor be missed."""
    labelled, left_out = _labelled(rows, order)
    mean = labelled.groupby(x)["place"].mean()
    if len(mean) < FEWEST:
        raise UserError(f"phases: labels in the order at {len(mean)} values of {x} are too few to say whether phases "
                        f"come in it; take {FEWEST} at least")
    data = _by(labelled, x)
    method = "Spearman's rank correlation of the mean places in the order"
    estimate = NOTHING
    if mean.nunique() > 1:
        fit = trend(labelled.assign(place=labelled["place"].astype(float)), x, "place", level=level)
        estimate = fit.estimates["rank_correlation"]
        method = f"Spearman's rank correlation of {len(mean)} mean places in the order"
    elif labelled["place"].nunique() > 1:
        estimate = Estimate(0.0, -1.0, 1.0, level)
    at = labelled.groupby(x)["place"].agg(["min", "max", "size"])
    backward = tuple((low, high) for (low, early), (high, late) in combinations(at.iterrows(), 2)
                     if early["min"] > late["max"] and min(early["size"], late["size"]) > 1)
    kept = float((np.diff(mean) >= 0).mean()) if len(mean) > 1 else 1.0
    return Walk(x, tuple(order), {"rank_correlation": estimate}, data, rows, left_out, backward, kept, method)


def walk_in_training(rows: pd.DataFrame, order: Sequence[str], *, level: float = LEVEL) -> Walk:
    """The column ``phase`` along ``step``, within each ``trial_id`` of each ``configuration``.

    A trial whose phase never changes has a correlation of 0. The interval is Student's over the means of
    configurations, or over trials where there is one configuration. Raises UserError for fewer than 6 of them: fewer
    runs that start alike may well go the same way by chance.
    """
    labelled, left_out = _labelled(rows, order)
    trials = labelled.sort_values("step").groupby("trial_id")
    found = trials.agg(configuration=("configuration", "first"))
    places = [group.to_numpy() for _, group in trials["place"]]
    found["r"] = [_correlation(each) for each in places]
    found["kept"] = [bool((np.diff(each) >= 0).all()) for each in places]
    several = found["configuration"].nunique() > 1
    each = found.groupby("configuration")["r"].mean() if several else found["r"]
    what = "configurations" if several else "trials"
    if len(each) < FEWEST_RUNS:
        raise UserError(f"phases: {len(each)} {what} are too few to say that phases come in order in training; take "
                        f"{FEWEST_RUNS} at least")
    estimate = NOTHING
    if labelled["place"].nunique() > 1:
        mean, half = each.mean(), stdtrit(len(each) - 1, (1 + level) / 2) * each.std() / math.sqrt(len(each))
        estimate = Estimate(float(mean), max(-1.0, mean - half), min(1.0, mean + half), level)
    method = f"mean of Spearman's rank correlations of {len(found)} trials, Student's t over {len(each)} {what}"
    return Walk("step", tuple(order), {"rank_correlation": estimate}, _by(labelled, "step"), rows, left_out, (),
                float(found["kept"].mean()), method)


def _labelled(rows: pd.DataFrame, order: Sequence[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """(Rows whose phase is in the order, with its ``place``; how many others there are of each kind)."""
    inside = rows["phase"].isin(order)
    if not inside.any():
        raise UserError(f"phases: none of {len(rows)} labels is in the order; {_reason(rows)}")
    others = rows.loc[~inside, "phase"].fillna("no label").value_counts()
    places = {phase: place for place, phase in enumerate(order)}
    return (rows[inside].assign(place=rows.loc[inside, "phase"].map(places).astype(int)),
            {str(name): int(count) for name, count in others.items()})


def _reason(rows: pd.DataFrame) -> str:
    found = rows["phase"].dropna()
    if len(found):
        return f"they are {', '.join(found.value_counts().index)}"
    reasons = rows["because"].dropna().tolist() if "because" in rows else []
    return f"the first reason: {reasons[0]}" if reasons else "there are none"


def _by(labelled: pd.DataFrame, x: str) -> pd.DataFrame:
    counts = labelled.groupby([x, "phase"]).size().unstack(fill_value=0)
    counts = counts[[phase for phase in PHASES if phase in counts]]  # of equally common ones the earliest
    found = pd.DataFrame({"phase": counts.idxmax(axis=1), "agree": counts.max(axis=1), "n": counts.sum(axis=1)})
    return found.reset_index()


def _correlation(places: npt.NDArray[np.intp]) -> float:
    """Spearman's, of places with the order in which they came."""
    if (places == places[0]).all():
        return 0.0
    return spearman(np.arange(len(places)), places)
