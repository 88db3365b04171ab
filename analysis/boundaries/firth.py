"""Logistic regression with Firth's penalty: finite where a line separates the outcomes and plain likelihood diverges.

l*(b) = l(b) + 1/2 ln |X' W X|, W = trials p (1 - p): likelihood times Jeffreys' prior (Firth, "Bias reduction of
maximum likelihood estimates", Biometrika 1993). Intervals and tests are those of its profile: 2 (max l* - max l* with
the parameter held) against chi-square (Heinze & Schemper, "A solution to the problem of separation in logistic
regression", Statistics in Medicine 2002); a held fit keeps the penalty of the whole model.

Two things are added. Where a transition falls between the points of a grid, the penalty prefers lines in the middle,
though others explain the outcomes as well: a value is likely here if either l* or l finds it likely. Where rows share
chance, the ratio is divided by how much that inflates the parameter's variance (Chandler & Bate, "Inference for
clustered data using the independence loglikelihood", Biometrika 2007), never by less than 1, and held against
F(1, clusters - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import f as f_distribution

from analysis.boundaries.newton import gram, maximize, state
from analysis.estimates import LEVEL

Array = npt.NDArray[np.float64]
Planes = Callable[[Array], tuple[Array, Array]]  # angles (B,) -> normals (B, C), points on the planes (B, C)
PRECISE, ENOUGH = 1e-10, 1e-4  # no step promises more in l*: for a fit, and for what is held
DRAWS, PROPOSALS = 400, 800
QUARTER = np.pi / 2
STEEPEST = 10.0  # times the fitted coefficient: what is not refuted here is not refuted at all


@dataclass(frozen=True)
class Firth:
    """A maximum of l*: ``coefficients`` (C,), ``log_likelihood`` l*, and two estimates of their covariance (C, C).

    ``covariance`` is the inverse of the Fisher information, ``clustered`` the sandwich over ``clusters`` groups of rows
    that share chance, which ``codes`` (n,) names from 0. ``plain`` is the maximum of l, or what it rises to.
    """

    design: Array = field(repr=False)
    ones: Array = field(repr=False)
    trials: Array = field(repr=False)
    coefficients: Array
    covariance: Array
    clustered: Array
    codes: npt.NDArray[np.intp] = field(repr=False)
    clusters: int
    log_likelihood: float
    plain: float
    converged: bool

    def ratio(self, numerator: int, denominator: int, level: float = LEVEL) -> tuple[float, float, float]:
        """r = -b_numerator / b_denominator with the ends of its profile interval.

        Both ends are infinite where the denominator may be 0: the set of likely r then goes through infinity.
        """
        above, below = np.eye(len(self.coefficients))[[numerator, denominator]]
        value = -self.coefficients[numerator] / self.coefficients[denominator]

        def planes(angles: Array) -> tuple[Array, Array]:  # of r = tan(angle)
            normals = np.cos(angles)[:, None] * above + np.sin(angles)[:, None] * below
            return normals, self._nearest(normals)

        rate = (1.0 + value**2) * abs(self.coefficients[denominator])
        ends = self._ends(planes, np.arctan(value), (-QUARTER, QUARTER), above + value * below, rate, level)
        low, high = (-np.inf, np.inf) if QUARTER in np.abs(ends) else np.tan(ends)
        return float(value), float(low), float(high)

    def size(self, column: int, level: float = LEVEL) -> tuple[float, float, float]:
        """abs(b_column) with the ends of its profile interval: from 0 where its sign is open, to infinity where the
        outcomes are (nearly) separated."""
        unit, value = np.eye(len(self.coefficients))[column], abs(float(self.coefficients[column]))

        def planes(angles: Array) -> tuple[Array, Array]:  # of b_column = tan(angle) times the fitted one
            return np.tile(unit, (len(angles), 1)), np.tan(angles)[:, None] * self.coefficients

        top = float(np.arctan(STEEPEST))
        low, high = self._ends(planes, QUARTER / 2, (0.0, top), unit, 2.0 * value, level)
        return value, value * float(np.tan(low)), value * float(np.tan(high)) if high < top else np.inf

    def likelihood_ratio(self, numerator: int, denominator: int, value: float) -> float:
        """Twice what is lost where -b_numerator / b_denominator is ``value``, over the inflation by clusters."""
        above, below = np.eye(len(self.coefficients))[[numerator, denominator]]
        fitted = -self.coefficients[numerator] / self.coefficients[denominator]
        return 2.0 * float(self.lost((above + value * below)[None])[0]) / self.inflation(above + fitted * below)

    def test(self, numerator: int, denominator: int, value: float) -> float:
        """p-value of -b_numerator / b_denominator = ``value``."""
        ratio = self.likelihood_ratio(numerator, denominator, value)
        return float(f_distribution.sf(ratio, 1, self.clusters - 1))

    def lost(self, normals: Array) -> Array:
        """What l* or l, whichever loses less, loses (B,) where normals (B, C) @ b = 0."""
        return self._loss(normals, self._nearest(normals))

    @property
    def chances(self) -> Array:
        """The fitted probability of each row, (n,)."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.design @ self.coefficients)))

    def joint_test(self, columns: Sequence[int]) -> float:
        """p-value of 0 for the coefficients of all these columns, by the likelihood ratio over its mean inflation by
        clusters (Rao & Scott, "On chi-squared tests for multiway contingency tables", Annals of Statistics 1984)."""
        free = np.delete(np.eye(len(self.coefficients)), columns, axis=1)
        lost = float(self._losses((self.coefficients * free.sum(axis=1))[None], free[None])[0][0])
        own = np.ix_(columns, columns)
        inflated = float(np.trace(np.linalg.solve(self.covariance[own], self.clustered[own]))) / len(columns)
        ratio = 2.0 * lost / len(columns) / max(1.0, inflated)
        return float(f_distribution.sf(ratio, len(columns), self.clusters - 1))

    def draws(self, denominator: int, rng: np.random.Generator, columns: int) -> Array:
        """Coefficients (DRAWS, C) whose ratios to that of ``denominator``, among the first ``columns``, are as likely
        as the profile says, with all else as it is most likely: drawn from a t with 4 degrees of freedom and resampled
        by weight."""
        others = (np.arange(len(self.coefficients)) != denominator) & (np.arange(len(self.coefficients)) < columns)
        size = self.coefficients[denominator]
        ratios = self.coefficients / size
        gradient = (np.eye(len(ratios)) - np.outer(ratios, np.eye(len(ratios))[denominator]))[others] / size
        inflation = max(self.inflation(each * size) for each in gradient)
        root = np.linalg.cholesky(2.0 * inflation * gradient @ self.covariance @ gradient.T)
        t = rng.normal(size=(PROPOSALS, len(root))) / np.sqrt(rng.chisquare(4, (PROPOSALS, 1)) / 4)
        lines = np.tile(ratios, (PROPOSALS, 1))
        lines[:, others] += t @ root.T
        parts = np.array_split(lines, 1 + PROPOSALS * len(self.design) // 500_000)  # or memory runs out
        rest = np.eye(len(ratios))[:, columns:]
        loss, found = map(np.concatenate, zip(*(self._losses(size * part, np.concatenate(
            [part[:, :, None] * (np.arange(len(ratios)) < columns)[:, None], np.tile(rest, (len(part), 1, 1))], axis=2))
            for part in parts), strict=True))
        weight = 0.5 * (4 + len(root)) * np.log1p((t**2).sum(axis=1) / 4) - loss / inflation
        weight = np.exp(weight - weight.max())
        return np.asarray(found[rng.choice(PROPOSALS, DRAWS, p=weight / weight.sum())])

    def inflation(self, gradient: Array) -> float:
        """How much clusters inflate the variance of the parameter with this gradient (C,)."""
        return inflation(self.covariance, self.clustered, gradient)

    def _nearest(self, normals: Array) -> Array:
        """The points (B, C) of planes through 0 that are nearest to the maximum."""
        share = normals @ self.coefficients / (normals**2).sum(axis=1)
        return np.asarray(self.coefficients - share[:, None] * normals)

    def _loss(self, normals: Array, points: Array) -> Array:
        """What is lost (B,) on the planes with these normals (B, C) through these points (B, C)."""
        return self._losses(points, np.linalg.svd(normals[:, None, :])[2][:, 1:].transpose(0, 2, 1))[0]

    def _losses(self, start: Array, basis: Array) -> tuple[Array, Array]:
        """What l* or l, whichever loses less, loses (B,) from its maximum to that in start (B, C) + basis (B, C, F);
        and where l* has the latter, (B, C)."""
        half = len(start)
        found, value, _ = maximize(self.design, self.ones, self.trials, np.tile(start, (2, 1)),
                                    np.tile(basis, (2, 1, 1)), np.repeat([1.0, 0.0], half), ENOUGH)
        lost = np.minimum(self.log_likelihood - value[:half], self.plain - value[half:])
        return np.maximum(lost, 0.0), found[:half]

    def _ends(self, planes: Planes, middle: float, bounds: tuple[float, float], gradient: Array, rate: float,
              level: float) -> Array:
        """The angles on either side of ``middle`` where the profile leaves the interval, or the bounds: (2,).

        The parameter with this ``gradient`` (C,) changes by ``rate`` an angle at the middle.
        """
        limit = np.sqrt(f_distribution.ppf(level, 1, self.clusters - 1) * self.inflation(gradient))
        reach = limit * np.sqrt(gradient @ self.covariance @ gradient) / rate * np.array([-1.0, 1.0])

        def beyond(angles: Array) -> Array:  # the root, because it is nearly straight on either side
            return np.asarray(np.sqrt(2.0 * self._loss(*planes(angles))) - limit)

        near, inside = np.full(2, middle), np.full(2, -limit)
        far = np.clip(middle + reach, *bounds)
        outside = beyond(far)
        while (going := (outside < 0) & (far != bounds)).any():
            near, inside = np.where(going, far, near), np.where(going, outside, inside)
            far, reach = np.clip(np.where(going, far + reach, far), *bounds), 2.0 * reach
            outside = np.where(going, beyond(far), outside)
        closed = outside >= 0
        for _ in range(5):  # regula falsi, the Illinois way: an end that stays counts half
            middles = np.where(closed, near + inside / np.where(closed, inside - outside, 1.0) * (far - near), far)
            found = beyond(middles)
            here = found < 0
            near, inside = np.where(here, middles, near), np.where(here, found, inside / 2)
            far, outside = np.where(here, far, middles), np.where(here, outside / 2, found)
        return np.where(closed, np.where(here, near, far), bounds)


def firth(design: Array, ones: Array, trials: Array | None = None, clusters: npt.ArrayLike | None = None) -> Firth:
    """Fit the design (n, C) of full column rank to ``ones`` (n,) of ``trials`` (n,), 1 by default, in each row.

    ``clusters`` (n,) names what rows share chance; each is its own by default.
    """
    trials = np.ones(len(design)) if trials is None else trials
    columns = design.shape[1]
    anywhere = np.tile(np.eye(columns), (2, 1, 1))
    found, value, converged = maximize(design, ones, trials, np.zeros((2, columns)), anywhere,
                                        np.array([1.0, 0.0]), PRECISE)
    p = state(design, ones, trials, found[:1], np.ones(1))[1][0]
    names, codes = np.unique(np.arange(len(design)) if clusters is None else clusters, return_inverse=True)
    covariance, clustered = sandwich(design, ones, trials, codes, p)
    return Firth(design, ones, trials, found[0], covariance, clustered, codes, len(names), float(value[0]),
                 float(value[1]), bool(converged[0]))


def sandwich(design: Array, ones: Array, trials: Array, clusters: npt.NDArray[np.generic], p: Array
             ) -> tuple[Array, Array]:
    """Covariance (C, C) of what the design (n, C) says d logit p is: by the Fisher information, and by the scores of
    clusters (Liang & Zeger 1986), times clusters / (clusters - 1)."""
    covariance = np.linalg.inv(gram(design, (trials * p * (1.0 - p))[None])[0])
    names, place = np.unique(clusters, return_inverse=True)
    scores = np.zeros((len(names), design.shape[1]))
    np.add.at(scores, place, (ones - trials * p)[:, None] * design)
    return covariance, covariance @ (scores.T @ scores) @ covariance * (len(names) / max(1, len(names) - 1))


def inflation(covariance: Array, clustered: Array, gradient: Array) -> float:
    """How much clusters inflate the variance of the parameter with this gradient (C,) in the coefficients."""
    return max(1.0, float(gradient @ clustered @ gradient / (gradient @ covariance @ gradient)))
