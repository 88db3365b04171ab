"""The 5+1 phases of Martin & Mahoney (2018, arXiv 1810.01075), named from the order parameters in the table ``layers``.

The paper describes the phases in words and gives no numbers where one ends. The thresholds here are a choice: they are
``Thresholds``, may be changed without a rerun, and ``sensitivity`` says how much hangs on each. Beside columns of the
table, four order parameters are made of them:

- zero_share = 1 - hard_rank / M: eigenvalues that are 0 to working precision.
- idle_share = 1 - delta_rank / M: directions that together hold 1% of the sum of all singular values (pure noise: 0.10
  in a square matrix, less in others).
- spike_share = n_spikes / M.
- bulk_misfit = mp_distance - (1.1 + 0.42 ln m) / m, at least 0, m = M - n_spikes: the share of the bulk that is out of
  place, beyond what noise of this size shows in 99 of 100 cases.

Spikes count where they are left with variances of rows and columns balanced (n_spikes_balanced); in tables that lack
this column n_spikes does. Entries without a fourth moment, P(|w| > x) ~ x^-mu with mu < 4, have eigenvalues beyond any
edge (Bai & Yin 1988): they are heavy-tailed by mu, where their shuffled matrix has most of the spikes too (traps), so
that they come from single entries.

``phase_probability`` is the share of 100 draws with the same label: in each, thresholds are multiplied by e^(0.2 z) and
the numbers moved as another matrix of the kind would (the largest eigenvalue by its Tracy-Widom deviation where there
is one spike or none, the misfit by that of noise, alpha's ratio by 1), z normal. The draws are always the same.

A small matrix gets no label: with few eigenvalues the spikes of a classifier are a large share of them, and no bulk is
left to tell apart. Shares labelled right, M = N and N = 2M (benchmarks/calibration_phases.py has more, all sizes):

    planted                            M = 32      48      64     128
    noise                                100%     98%    100%    100%
    4 spikes at 1.3 times visibility       3%     27%     58%     90%    (else random-like or bulk+spikes)
    3 spikes at 3 times visibility       100%    100%    100%    100%
    9 spikes at 2 to 10 times              0%    100%    100%    100%
    columns, variances of e^0 to e^-4     97%    100%    100%    100%
    Pareto entries of exponent 1.5        95%     98%     97%    100%
    half rank                            100%    100%    100%    100%

So labels take ``least_cols`` = 48, but for rank-collapse by zeros, ``least_collapse`` = 32, and bleeding-out,
``least_bleeding`` = 64. Weak spikes look like noise in many matrices below M = 128.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from analysis.phase_names import PHASES
from trials.errors import no_column
from trials.spectra.alpha import LEAST_P, LEAST_RATIO
from trials.spectra.bulk import misplaced_by_noise

Array = NDArray[np.float64]
__all__ = ["NEEDED", "ORDER_PARAMETERS", "PHASES", "READ", "Thresholds", "label_phases", "order_parameters",
           "sensitivity", "vote"]
NEEDED = ("cols", "hard_rank", "delta_rank", "n_spikes", "mp_softrank", "mp_distance", "alpha")
SHARPER = ("rows", "alpha_tail", "n_spikes_balanced", "randomized_traps", "entry_tail_index", "tw_gap", "alpha_p",
           "alpha_ratio")  # if there
READ = (*NEEDED, *SHARPER)
_EACH_SPIKE = 3  # eigenvalues of a tail that a bulk is to account for with each spike it takes
_DRAWS, _CHOICE = 100, 0.2  # of phase_probability
_EDGE, _EDGE_DEVIATION = 2.02, 1.27  # of tw_gap: the 99% quantile in noise, and the deviation
_MISFIT_DEVIATION = 0.35  # eigenvalues out of place
ORDER_PARAMETERS = ("zero_share", "idle_share", "spike_share", "bulk_misfit")


def _choice(default: float, why: str) -> float:
    value: float = field(default=default, metadata={"why": why})
    return value


@dataclass(frozen=True)
class Thresholds:
    """Where one phase ends and the next begins; the field's metadata say why there.

    Asked in this order, the first that holds names the phase:

    0. null order parameters, or fewer than ``least_collapse`` eigenvalues: no phase.
    1. zero_share >= ``zero_share``: rank-collapse. No other phase with fewer than ``least_cols`` eigenvalues.
    2. alpha passed its gate, and mp_softrank <= ``heavy_softrank`` (or there is no bulk): heavy-tailed, unless
       bulk_misfit <= ``bulk_misfit`` and the tail is mostly this bulk: n_spikes less than a third of it.
    3. entry_tail_index < ``entry_tail`` by 1.64 of its standard errors, and randomized_traps are half of n_spikes or
       more: heavy-tailed.
    4. idle_share >= ``idle_share``: rank-collapse.
    5. no Marchenko-Pastur fit: no phase.
    6. bulk_misfit > ``bulk_misfit`` or spike_share > ``spike_share``: bulk-decay; no phase if nothing is above the edge
       (an orthogonal matrix, say).
    7. no spikes, balanced: random-like.
    8. mp_softrank > ``spike_softrank``: bleeding-out, or no phase with fewer than ``least_bleeding`` eigenvalues.
    9. else: bulk+spikes.
    """

    least_cols: float = _choice(48, "least M at which planted phases are told apart, see above")
    least_collapse: float = _choice(32, "least M for rank-collapse, which needs no bulk to be told from")
    least_bleeding: float = _choice(64, "least M for bleeding-out: in smaller ones weak spikes seem noise, or strong")
    zero_share: float = _choice(0.05, "a mass at 0, not the odd dead unit")
    heavy_softrank: float = _choice(0.5, "lambda_max is far above the edge: twice it, at least")
    entry_tail: float = _choice(4.0, "with a fourth moment the largest eigenvalue of noise stays at the edge")
    idle_share: float = _choice(0.5, "half of the directions do nothing, though rounding or noise keeps them from 0")
    bulk_misfit: float = _choice(0.02, "1 eigenvalue in 50 out of place can be seen; less is found in any large matrix")
    spike_share: float = _choice(0.2, "spikes are few: where they are a fifth of all, nothing stands apart from a bulk")
    spike_softrank: float = _choice(0.8, "a spike apart is a quarter above the edge; noise at M = 64 reaches 2%")


def order_parameters(layers: pd.DataFrame) -> pd.DataFrame:
    """The four order parameters of each row, with the frame's index; NaN where what they are made of is null."""
    for name in NEEDED:
        if name not in layers:
            raise no_column("phases", name, layers.columns)
    cols, hard, delta, spikes, distance = (
        layers[name].astype(float) for name in ("cols", "hard_rank", "delta_rank", "n_spikes", "mp_distance"))
    left = cols - spikes
    allowed = misplaced_by_noise(torch.tensor(left.to_numpy())).numpy() / left
    return pd.DataFrame({"zero_share": 1.0 - hard / cols, "idle_share": 1.0 - delta / cols,
                         "spike_share": spikes / cols, "bulk_misfit": (distance - allowed).clip(lower=0.0)})


def label_phases(layers: pd.DataFrame, thresholds: Thresholds | None = None) -> pd.DataFrame:
    """The rows of the table ``layers`` with their order parameters, ``phase``, ``phase_probability`` and ``because``.

    ``phase`` is one of PHASES, or None where the numbers are null or fit none of them; ``because`` gives the order
    parameters that decided, and what speaks of noise that is not of equal variance, or the reason why there is no
    phase. Columns SHARPER may be missing. Raises UserError for a frame that lacks another.
    """
    t = thresholds or Thresholds()
    found = order_parameters(layers)
    values = _values(layers, found)
    first = _first(values, t)
    result = layers.assign(**found)
    result["phase"] = pd.Series([_RULES[rule][0] for rule in first], index=layers.index, dtype=object)
    result["phase_probability"] = np.where(result["phase"].notna(), _probability(values, t, first), np.nan)
    shown = result.assign(**{name: values[name] for name in READ})
    result["because"] = pd.Series([_because(row, _RULES[rule], t)
                                   for row, rule in zip(shown.to_dict("records"), first, strict=True)],
                                  index=layers.index, dtype=object)
    return result


# The phase that each rule gives, and the numbers that decide it: in the order of ``_first``.
_RULES: tuple[tuple[str | None, str], ...] = (
    (None, ""), (None, "least_collapse"), ("rank-collapse", "zero_share"), (None, "least_cols"),
    ("heavy-tailed", "alpha mp_softrank"),
    ("heavy-tailed", "entry_tail_index randomized_traps n_spikes"), ("rank-collapse", "idle_share"), (None, ""),
    (None, "bulk_misfit"), ("bulk-decay", "bulk_misfit spike_share"), ("random-like", "n_spikes bulk_misfit"),
    (None, "least_bleeding"), ("bleeding-out", "n_spikes mp_softrank"), ("bulk+spikes", "n_spikes mp_softrank"))


def _values(layers: pd.DataFrame, found: pd.DataFrame) -> dict[str, Array]:
    """What the rules look at, NaN where null or missing; ``spikes``: those that count."""
    values = {name: layers[name].to_numpy(dtype=float, na_value=np.nan) if name in layers else
              np.full(len(layers), np.nan) for name in READ}
    values |= {name: found[name].to_numpy() for name in ORDER_PARAMETERS}
    values["spikes"] = np.fmin(values["n_spikes_balanced"], values["n_spikes"])
    return values


def _first(v: Mapping[str, Array], t: Thresholds) -> NDArray[np.intp]:
    """The place in _RULES of the first rule that holds, for each row."""
    decayed = (v["bulk_misfit"] > t.bulk_misfit) | (v["spike_share"] > t.spike_share)
    tail = np.fmax(10.0, 0.01 * v["cols"] * np.fmax(v["rows"], v["cols"]))  # entries that give the index
    heavy = v["entry_tail_index"] * (1.0 + 1.64 / np.sqrt(tail)) < t.entry_tail
    bulk = (v["bulk_misfit"] <= t.bulk_misfit) & (v["n_spikes"] < v["alpha_tail"] / _EACH_SPIKE)
    rules = [
        np.isnan(v["zero_share"]) | np.isnan(v["idle_share"]),
        v["cols"] < t.least_collapse,
        v["zero_share"] >= t.zero_share,
        v["cols"] < t.least_cols,
        ~np.isnan(v["alpha"]) & ~(v["mp_softrank"] > t.heavy_softrank) & ~bulk,
        heavy & (v["randomized_traps"] >= v["n_spikes"] / 2),
        v["idle_share"] >= t.idle_share,
        np.isnan(v["mp_softrank"]) | np.isnan(v["n_spikes"]),
        decayed & (v["n_spikes"] == 0),
        decayed,
        v["spikes"] == 0,
        (v["mp_softrank"] > t.spike_softrank) & (v["cols"] < t.least_bleeding),
        v["mp_softrank"] > t.spike_softrank,
        ~np.isnan(v["mp_softrank"]),
    ]
    first: NDArray[np.intp] = np.argmax(np.column_stack(rules), axis=1)
    return first


def _probability(values: Mapping[str, Array], t: Thresholds, first: NDArray[np.intp]) -> Array:
    """The share of draws in which each row has the phase that the rule ``first`` gives; see the module."""
    phases = np.array([phase or "" for phase, _ in _RULES])
    chosen = [f.name for f in fields(t) if not f.name.startswith("least_")]
    same = np.zeros(len(first))
    few, ratio = (values["n_spikes"] <= 1) & ~np.isnan(values["tw_gap"]), values["alpha_ratio"]
    near = np.isnan(values["alpha"]) & (values["alpha_p"] >= LEAST_P) & (ratio < LEAST_RATIO)
    for edge, misfit, tail, *z in np.random.default_rng(0).standard_normal((_DRAWS, 3 + len(chosen))):
        seen = values["tw_gap"] + _EDGE_DEVIATION * edge > _EDGE
        found = np.where(values["n_spikes"] == 0, 1.0, values["spikes"])
        passes = ~(ratio + tail < LEAST_RATIO)
        moved = {**values, "spikes": np.where(few, np.where(seen, found, 0.0), values["spikes"]),
                 "bulk_misfit": values["bulk_misfit"] + _MISFIT_DEVIATION * misfit / values["cols"],
                 "alpha": np.where(near & passes, values["alpha_p"], np.where(passes, values["alpha"], np.nan))}
        drawn = replace(t, **{name: getattr(t, name) * math.exp(_CHOICE * each)
                              for name, each in zip(chosen, z, strict=True)})
        same += phases[_first(moved, drawn)] == phases[first]
    return same / _DRAWS


def _because(row: Mapping[str, Any], rule: tuple[str | None, str], t: Thresholds) -> str:
    phase, deciding = rule
    names = deciding.split()
    if deciding.startswith("least_"):
        what = "weak spikes from noise" if deciding == "least_bleeding" else "phases apart"
        least = t.least_bleeding if deciding == "least_bleeding" else t.least_cols
        return f"{row['cols']:.0f} eigenvalues: too few to tell {what}, which takes {least:g}"
    if phase is not None:  # what noise of unequal variance, of correlated or of heavy entries shows
        names += [name for name in ("bulk_misfit", "randomized_traps") if row[name] > 0 and name not in names]
        if row["n_spikes_balanced"] < row["n_spikes"]:
            names.append("n_spikes_balanced")
    said = ", ".join(f"{name} {row[name]:.3g}" for name in names if pd.notna(row[name]))
    if phase is not None:
        return said
    if said:
        return f"{said}: the bulk is not Marchenko-Pastur, but nothing is above its edge"
    reason = row.get("reason")
    return reason if isinstance(reason, str) else "the order parameters are null"


def sensitivity(layers: pd.DataFrame, thresholds: Thresholds | None = None,
                factors: Sequence[float] = (0.5, 0.8, 1.25, 2.0)) -> pd.DataFrame:
    """How labels change when one threshold at a time is multiplied by a factor, a row for each.

    Columns: ``threshold``, ``factor``, the ``value`` it gives, ``changed`` (rows with another label than before),
    their ``share`` of all rows, and the number of rows of each phase and of ``none``. The first row changes nothing.
    """
    t = thresholds or Thresholds()
    before = label_phases(layers, t)["phase"].fillna("none")
    rows: list[dict[str, object]] = []
    for name, factor in [("none", 1.0), *((f.name, factor) for f in fields(t) for factor in factors)]:
        value = np.nan if name == "none" else getattr(t, name) * factor
        after = before if name == "none" else label_phases(layers, replace(t, **{name: value}))["phase"].fillna("none")
        changed = int((after != before).sum())
        counts = {phase: int((after == phase).sum()) for phase in (*PHASES, "none")}
        rows.append({"threshold": name, "factor": factor, "value": value, "changed": changed,
                     "share": changed / max(1, len(before)), **counts})
    return pd.DataFrame(rows)


def vote(labels: pd.Series) -> tuple[str | None, int]:
    """(The commonest of some labels, how many have it); of those equally common the earliest in PHASES; (None, 0) where
    all are None."""
    counts = labels.value_counts()
    best = max(PHASES, key=lambda phase: counts.get(phase, 0))
    return (best, int(counts[best])) if len(counts) else (None, 0)
