"""Whether a number rises or falls with an axis, whatever the law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm, rankdata

from analysis.estimates import LEVEL, Estimate
from analysis.laws.adequacy import setting_means
from analysis.laws.fit import numbers
from trials.errors import UserError, no_column

FEWEST = 5  # values of x


@dataclass(frozen=True)
class Trend:
    """``estimates`` has ``rank_correlation``, Spearman's between x and the mean of y at each x. ``data`` has a row for
    each x: x, y (that mean) and ``n``, how many of ``rows`` (x, y) it is of."""

    x: str
    y: str
    estimates: Mapping[str, Estimate]
    data: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    method: str


def trend(data: pd.DataFrame, x: str, y: str, *, crossed: str | None = None, level: float = LEVEL) -> Trend:
    """Spearman's rank correlation r of the means of ``y`` with ``x``: 1 where they only rise, -1 where they only fall.

    Rows at the same x are replicates: what a curve does between two values of x is no chance of theirs, so means count,
    not rows. Where some x lack some of the ``crossed`` values, such as seeds, what these do at all x alike is taken
    out. The interval is Fisher's: atanh r plus or minus z sqrt((1 + r^2 / 2) / (n - 3)) with n values of x (Bonett &
    Wright 2000), r held within the largest value short of 1 that n ranks can have. Raises UserError for unknown
    columns and fewer than 5 values of x.
    """
    if crossed is not None and crossed not in data:
        raise no_column("trend", crossed, data.columns)
    data = data.reset_index(drop=True)
    rows, _ = numbers(data, (x, y), "trend")
    means = rows.groupby(x)[y].agg(["mean", "size"]).reset_index().set_axis([x, y, "n"], axis=1)
    if crossed is not None:
        means[y] = setting_means(rows[y].to_numpy(), pd.factorize(rows[x], sort=True)[0],
                                 pd.factorize(data.loc[rows.index, crossed])[0])
    n = len(means)
    if n < FEWEST:
        raise UserError(f"trend: {n} values of {x} are too few to say whether {y} rises; take {FEWEST} at least")
    if means[y].nunique() == 1:
        raise UserError(f"trend: {y} is the same at every {x}")
    r = spearman(means[x].to_numpy(), means[y].to_numpy())
    most = 1.0 - 6.0 / (n * (n**2 - 1))  # two neighbours that are as good as tied
    held = float(np.clip(r, -most, most))
    half = norm.ppf((1 + level) / 2) * np.sqrt((1 + held**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(held) - half), np.tanh(np.arctanh(held) + half)
    estimate = Estimate(r, -1.0 if r < -most else float(low), 1.0 if r > most else float(high), level)
    return Trend(x, y, {"rank_correlation": estimate}, means, rows, f"Spearman's rank correlation of {n} means")


def spearman(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    """Spearman's rank correlation: 1 and -1 to the last digit where y only rises or falls, as a quotient of standard
    deviations need not be. Neither may be all one value."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y))  # halves, whose sums are exact
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
