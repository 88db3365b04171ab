"""Finite-size scaling: does a transition sharpen with size, as one of infinite systems does, or is it a crossover?

logit p = c + a (v - v_c) (L / L0)^w, w = 1/nu: the curves of all sizes L cross at v_c and fall onto one (Fisher &
Barber, "Scaling theory for finite-size effects in the critical region", PRL 1972); where they cross p need not be 1/2.
For each w it is a logistic regression on 1, v L^w and (L^w - 1) / w, whose last column is ln L at w = 0: there v_c is
lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import f as f_distribution

from analysis.boundaries.firth import Firth, firth, inflation, sandwich
from analysis.boundaries.outcomes import coordinates, outcome_table, tally
from analysis.estimates import LEVEL, Estimate
from analysis.figures.style import spans_decades
from trials.errors import UserError

Array = npt.NDArray[np.float64]
LOWEST, HIGHEST = -2.0, 6.0  # w searched; an interval that reaches an end is open there
LEAST_SIZES = 3


@dataclass(frozen=True)
class FiniteSize:
    """``estimates``: ``critical`` (v_c as a value of the column) and ``exponent`` (1/nu). ``kind``: transition where
    the interval of 1/nu lies above 0, none where the outcome does not depend on v, else crossover; ``because`` says it
    in words. ``n`` rows were fitted, by ``method``."""

    estimates: Mapping[str, Estimate]
    kind: Literal["transition", "crossover", "none"]
    because: str
    n: int
    method: str


def fit_finite_size(data: pd.DataFrame, outcome: str, y: str, size: str, *, log: bool | None = None,
                    cluster: str | None = None, censored: str | None = None, level: float = LEVEL) -> FiniteSize:
    """Fit how the transition of ``outcome`` (0 or 1, a row a trial) in the column ``y`` changes with that of ``size``.

    v is ln y if ``log``, by default if y is positive and spans more than a decade; ``cluster`` (by default the points)
    and ``censored`` are as for a boundary. Intervals are those of the profile likelihood, as in ``firth``. Raises
    UserError for a column that is not there or not numbers, an outcome that is not 0 or 1, and fewer than three sizes.
    """
    table = outcome_table(data, outcome, (y, size), cluster, censored)
    used = table[~table["censored"]]
    if used[size].nunique() < LEAST_SIZES:
        raise UserError(f"finite size of {outcome}: {size} has {used[size].nunique()} values; it takes {LEAST_SIZES}")
    log = spans_decades(used[y]) if log is None else log
    values = coordinates(used, (y, size), (log, True))
    if np.ptp(values[:, 0]) == 0.0:
        raise UserError(f"finite size of {outcome}: {y} has one value; sweep it")
    center = values.mean(axis=0)
    points, ones, trials, clusters = tally(values - center, used[outcome], used["cluster"])
    scaling = _Scaling(points[:, 0], points[:, 1], ones, trials, clusters, level)
    method = (f"logistic finite-size scaling, profile likelihood intervals, {len(np.unique(clusters))} clusters "
              f"({cluster or f'points of {y} and {size}'})")
    if used[outcome].nunique() == 1 or scaling.fit(0.0).size(1, level)[1] == 0.0:
        unknown = Estimate(np.nan, -np.inf, np.inf, level)
        return FiniteSize({"critical": unknown, "exponent": unknown}, "none", f"{int(ones.sum())} of {len(used)} rows "
                          f"are 1, and nothing says that it depends on {y}", len(used), method)
    exponent = scaling.exponent
    critical = [center[0] + v for v in scaling.critical()]
    value, low, high = map(float, np.exp(critical) if log else critical)
    kind: Literal["transition", "crossover"] = "transition" if exponent.low > 0 else "crossover"
    said = "sharpens" if kind == "transition" else "need not sharpen"
    return FiniteSize({"critical": Estimate(value, low, high, level), "exponent": exponent}, kind,
                      f"it {said} with {size}: 1/nu {exponent}", len(used), method)


@dataclass(frozen=True)
class _Scaling:
    """Points: v and ln L from their means, ``ones`` of ``trials`` at each, and the codes of what shares chance."""

    v: Array
    size: Array
    ones: Array
    trials: Array
    clusters: npt.NDArray[np.intp]
    level: float

    def design(self, w: float) -> Array:
        """Columns 1, v L^w and (L^w - 1) / w."""
        shift = self.size if abs(w) < 1e-9 else np.expm1(w * self.size) / w
        return np.column_stack([np.ones(len(self.v)), self.v * np.exp(w * self.size), shift])

    def fit(self, w: float) -> Firth:
        return firth(self.design(w), self.ones, self.trials, self.clusters)

    def heights(self, fit: Firth) -> Array:
        """l* as if columns were of unit size, so that it can be compared between designs, and l: (2,)."""
        scale = np.linalg.slogdet(fit.design.T @ fit.design)[1]
        return np.array([fit.log_likelihood - 0.5 * scale, fit.plain])

    @cached_property
    def best(self) -> tuple[float, Array]:
        """w of the highest l*, and the highest l* and l of all w, (2,)."""
        grid = np.linspace(LOWEST, HIGHEST, 33)
        heights = np.array([self.heights(self.fit(w)) for w in grid])
        step = grid[1] - grid[0]
        tops, places = [], []
        for column in range(2):
            middle = grid[heights[:, column].argmax()]
            found = minimize_scalar(lambda w, column=column: -self.heights(self.fit(w))[column], method="bounded",
                                    bounds=(middle - step, middle + step), options={"xatol": 1e-3})
            tops.append(-found.fun)
            places.append(float(found.x))
        return places[0], np.array(tops)

    def lost(self, fit: Firth) -> float:
        """What l* or l, whichever loses less, loses at this w."""
        return max(0.0, float((self.best[1] - self.heights(fit)).min()))

    def limit(self, gradient: Array) -> float:
        """What may be lost at the end of the interval of the parameter with this gradient in (coefficients, w)."""
        w, fit = self.best[0], self.fit(self.best[0])
        change = (self.design(w + 1e-4) - self.design(w - 1e-4)) @ fit.coefficients / 2e-4
        design = np.column_stack([fit.design, change])
        p = 1.0 / (1.0 + np.exp(-fit.design @ fit.coefficients))
        covariance, clustered = sandwich(design, self.ones, self.trials, self.clusters, p)
        quantile = f_distribution.ppf(self.level, 1, fit.clusters - 1)
        return float(0.5 * quantile * inflation(covariance, clustered, gradient))

    @cached_property
    def exponent(self) -> Estimate:
        """w, by its profile: ends that are not refuted as far as is searched are open."""
        limit = self.limit(np.eye(4)[3])

        def beyond(w: float) -> float:
            return float(np.sqrt(self.lost(self.fit(w))) - np.sqrt(limit))

        ends = []
        for end in (LOWEST, HIGHEST):
            near, open_end = self.best[0], True
            for far in np.linspace(near, end, 13)[1:]:
                if beyond(far) > 0:
                    ends.append(float(brentq(beyond, near, far, xtol=1e-3)))
                    open_end = False
                    break
                near = far
            if open_end:
                ends.append(np.sign(end) * np.inf)
        return Estimate(self.best[0], ends[0], ends[1], self.level)

    def critical(self) -> tuple[float, float, float]:
        """v_c - mean of v = -b2 / (b1 w), with the ends of its profile over w; open where it leaves what was swept by
        more than the swept range."""
        w, fit = self.best[0], self.fit(self.best[0])
        _, b1, b2 = fit.coefficients
        value = float(-b2 / (b1 * w))
        limit = self.limit(np.array([0.0, b2 / b1, -1.0, b2 / w]))
        likely = np.linspace(max(LOWEST, self.exponent.low), min(HIGHEST, self.exponent.high), 13)
        fits = [self.fit(each) for each in likely]
        already = [self.lost(each) for each in fits]

        def beyond(v: Array) -> Array:
            """How much more than the limit is lost at each v_c (B,), at the w that loses least."""
            return np.asarray(np.min([lost + each.lost(np.column_stack([0.0 * v, w * v, 1.0 + 0.0 * v]))
                           for w, each, lost in zip(likely, fits, already, strict=True)], axis=0) - limit)

        width = np.ptp(self.v)
        ends = []
        for end in (self.v.min() - width, self.v.max() + width):
            near, far = np.clip(value, self.v.min() - width, self.v.max() + width), end
            for _ in range(3):
                steps = np.linspace(near, far, 17)
                outside = beyond(steps) > 0
                outside[0] = False
                if not outside.any():
                    near = far = np.sign(end) * np.inf
                    break
                first = int(outside.argmax())
                near, far = steps[first - 1], steps[first]
            ends.append(float(near + far) / 2)
        return value, ends[0], ends[1]
