"""Seeds that are crossed with the points of a boundary: each shifts it at all points alike.

The shifts are fitted beside the surface, as fixed effects that sum to 0, so that slopes are those within seeds. The
location is the mean of the S seeds' locations L_s, and other seeds have others: its interval is mean +- t sd(L_s) /
sqrt(S), Student's t with S - 1 degrees of freedom (a random intercept; Searle, Casella & McCulloch, "Variance
Components", 1992), and nowhere narrower than that of these seeds alone. What points share, which moves all L_s alike,
is added to their variance. Seeds that lie as near each other as a grid can tell have an sd near 0 by no merit of
theirs: it counts as no less than the standard error of an L_s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from analysis.boundaries.firth import Firth
from analysis.boundaries.outcomes import LEAST_POINTS

Array = npt.NDArray[np.float64]
MOST_GROUPS = 12  # more seeds are dealt into so many groups, each of which counts as one


@dataclass(frozen=True)
class Seeds:
    """``codes`` (n,) from 0 to ``groups`` - 1 of rows; ``count`` is the number of seeds. Those at fewer points than a
    boundary takes have no location of their own, and are dealt to those that have."""

    codes: npt.NDArray[np.intp]
    groups: int
    count: int

    @classmethod
    def of(cls, seed: pd.Series, points: npt.ArrayLike) -> Seeds | None:
        """The seeds of rows at ``points`` (n,), as codes; None where each has points of its own, or there is one."""
        codes = pd.factorize(seed, sort=True, use_na_sentinel=False)[0]
        spread = pd.Series(points).groupby(codes).nunique().to_numpy()
        groups = min(MOST_GROUPS, int((spread >= LEAST_POINTS).sum()))
        if groups < 2:
            return None
        place = np.empty(len(spread), int)
        place[np.argsort(-spread, kind="stable")] = np.arange(len(spread)) % groups
        return cls(place[codes], groups, len(spread))

    @property
    def columns(self) -> Array:
        """A column for each group but the last, (n, groups - 1): their shifts, which sum to 0 with that of the last."""
        contrasts = np.vstack([np.eye(self.groups - 1), -np.ones(self.groups - 1)])
        return np.asarray(contrasts[self.codes])


@dataclass(frozen=True)
class Shifts:
    """How far the groups' locations lie from their mean: ``sd``, of so many ``groups``; ``error`` is the standard error
    of each, and ``shared`` the part of its variance that points share."""

    sd: float
    error: float
    groups: int
    shared: float

    @classmethod
    def of(cls, fit: Firth, groups: int) -> Shifts:
        """From a surface whose last columns are those of ``Seeds``."""
        effects = fit.coefficients[-(groups - 1):]
        steepness = fit.coefficients[2]
        location = -fit.coefficients[0] / steepness
        gradient = np.eye(len(fit.coefficients))[0] + location * np.eye(len(fit.coefficients))[2]
        sd = np.std(np.append(effects, -effects.sum()), ddof=1) / abs(steepness)
        error = np.sqrt(groups * (gradient @ fit.covariance @ gradient)) / abs(steepness)
        return cls(float(sd), float(error), groups, 1.0 - 1.0 / fit.inflation(gradient))

    @property
    def between(self) -> float:
        """The standard error of their mean, as a location of seeds."""
        return max(self.sd, self.error) / float(np.sqrt(self.groups))

    def widened(self, value: float, low: float, high: float, level: float) -> tuple[float, float]:
        """The ends of the location's interval for other seeds, from those of these seeds alone."""
        if np.isinf(low):
            return low, high
        between = student.ppf((1 + level) / 2, self.groups - 1) * self.between
        return (value - max(value - low, np.hypot(between, (value - low) * np.sqrt(self.shared))),
                value + max(high - value, np.hypot(between, (high - value) * np.sqrt(self.shared))))

    def draws(self, count: int, rng: np.random.Generator) -> Array:
        """Shifts of the location by what other seeds would change, (count,)."""
        return np.asarray(rng.standard_t(self.groups - 1, count) * self.between)

    def __str__(self) -> str:
        few = ": wide, since two seeds say little of others" if self.groups == 2 else ""
        return f"Student's t with {self.groups - 1} degrees of freedom{few}"
