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

A small matrix gets no label: with few eigenvalues the spikes of a classifier are a large share of them, and no bulk is
left to tell apart. Planted phases (60 draws each of N x M with N = M, 4M and 8M; noise, spikes at 3 times visibility,
columns of unequal variance, Pareto entries of exponent 1, half rank):

    share labelled right          M = 10        24          32          48          64          128
    noise                         98-100%       95-98%      97-100%     98-100%     98-100%     97-100%
    4 spikes                      0             97-98%      100%        100%        97-100%     100%
    9 spikes (10 classes)         -             0           0           98-100%     100%        100%
    bulk-decay                    18-100%       83-100%     95-100%     100%        100%        100%
    heavy-tailed                  0-28%         57-92%      83-95%      92-98%      93-98%      97-98%
    half rank                     100%          100%        100%        100%        100%        100%

So ``least_cols`` is 48. Spikes at 1.3 times visibility (bleeding-out) are few enough to find later: in 32-88% of draws
at M = 48, 45-93% at 64, 93-100% at 128; they look like noise or bulk+spikes below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.phase_names import PHASES
from trials.errors import UserError, did_you_mean
from trials.spectra.bulk import misplaced_by_noise

__all__ = ["NEEDED", "ORDER_PARAMETERS", "PHASES", "Thresholds", "label_phases", "order_parameters", "sensitivity",
           "vote"]
NEEDED = ("cols", "hard_rank", "delta_rank", "n_spikes", "mp_softrank", "mp_distance", "alpha")
ORDER_PARAMETERS = ("zero_share", "idle_share", "spike_share", "bulk_misfit")


def _choice(default: float, why: str) -> float:
    value: float = field(default=default, metadata={"why": why})
    return value


@dataclass(frozen=True)
class Thresholds:
    """Where one phase ends and the next begins; the field's metadata say why there.

    Asked in this order, the first that holds names the phase:

    0. null order parameters, or fewer than ``least_cols`` eigenvalues: no phase.
    1. zero_share >= ``zero_share``: rank-collapse.
    2. alpha passed its gate, and mp_softrank <= ``heavy_softrank`` (or there is no bulk): heavy-tailed.
    3. idle_share >= ``idle_share``: rank-collapse.
    4. no Marchenko-Pastur fit: no phase.
    5. bulk_misfit > ``bulk_misfit`` or spike_share > ``spike_share``: bulk-decay; no phase if nothing is above the edge
       (an orthogonal matrix, say).
    6. no spikes: random-like.
    7. mp_softrank > ``spike_softrank``: bleeding-out, else bulk+spikes.
    """

    least_cols: float = _choice(48, "least M at which planted phases are told apart, see above")
    zero_share: float = _choice(0.05, "a mass at 0, not the odd dead unit")
    heavy_softrank: float = _choice(0.5, "lambda_max is far above the edge: twice it, at least")
    idle_share: float = _choice(0.5, "half of the directions do nothing, though rounding or noise keeps them from 0")
    bulk_misfit: float = _choice(0.02, "1 eigenvalue in 50 out of place can be seen; less is found in any large matrix")
    spike_share: float = _choice(0.2, "spikes are few: where they are a fifth of all, nothing stands apart from a bulk")
    spike_softrank: float = _choice(0.8, "a spike apart is a quarter above the edge; noise at M = 64 reaches 2%")


def order_parameters(layers: pd.DataFrame) -> pd.DataFrame:
    """The four order parameters of each row, with the frame's index; NaN where what they are made of is null."""
    for name in NEEDED:
        if name not in layers:
            raise UserError(f"phases: no column called {name!r}; {did_you_mean(name, map(str, layers.columns))}")
    cols, hard, delta, spikes, distance = (
        layers[name].astype(float) for name in ("cols", "hard_rank", "delta_rank", "n_spikes", "mp_distance"))
    left = cols - spikes
    allowed = misplaced_by_noise(torch.tensor(left.to_numpy())).numpy() / left
    return pd.DataFrame({"zero_share": 1.0 - hard / cols, "idle_share": 1.0 - delta / cols,
                         "spike_share": spikes / cols, "bulk_misfit": (distance - allowed).clip(lower=0.0)})


def label_phases(layers: pd.DataFrame, thresholds: Thresholds | None = None) -> pd.DataFrame:
    """The rows of the table ``layers`` with their order parameters, ``phase`` and ``because`` added.

    ``phase`` is one of PHASES, or None where the numbers are null or fit none of them; ``because`` gives the order
    parameters that decided, or the reason why there is no phase. Raises UserError for a frame that lacks a column.
    """
    t = thresholds or Thresholds()
    found = order_parameters(layers)
    spikes, softrank, alpha = (layers[name].astype(float) for name in ("n_spikes", "mp_softrank", "alpha"))
    decayed = (found["bulk_misfit"] > t.bulk_misfit) | (found["spike_share"] > t.spike_share)
    nothing = found["zero_share"].isna() | found["idle_share"].isna()
    rules: list[tuple[pd.Series, str | None, str]] = [
        (nothing, None, ""),
        (layers["cols"].astype(float) < t.least_cols, None, "cols"),
        (found["zero_share"] >= t.zero_share, "rank-collapse", "zero_share"),
        (alpha.notna() & ~(softrank > t.heavy_softrank), "heavy-tailed", "alpha mp_softrank"),
        (found["idle_share"] >= t.idle_share, "rank-collapse", "idle_share"),
        (softrank.isna() | spikes.isna(), None, ""),
        (decayed & (spikes == 0), None, "bulk_misfit"),
        (decayed, "bulk-decay", "bulk_misfit spike_share"),
        (spikes == 0, "random-like", "n_spikes bulk_misfit"),
        (softrank > t.spike_softrank, "bleeding-out", "n_spikes mp_softrank"),
        (softrank.notna(), "bulk+spikes", "n_spikes mp_softrank"),
    ]
    first = np.argmax(np.column_stack([condition.to_numpy() for condition, _, _ in rules]), axis=1)
    result = layers.assign(**found)
    result["phase"] = pd.Series([rules[rule][1] for rule in first], index=layers.index, dtype=object)
    result["because"] = pd.Series([_because(row, rules[rule][1], rules[rule][2].split(), t)
                                   for row, rule in zip(result.to_dict("records"), first, strict=True)],
                                  index=layers.index, dtype=object)
    return result


def _because(row: Mapping[str, Any], phase: str | None, names: Sequence[str], t: Thresholds) -> str:
    if names == ["cols"]:
        return f"{row['cols']:.0f} eigenvalues: too few to tell phases apart, which takes {t.least_cols:g}"
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
