"""Whether a boundary has the shape that was fitted to it: sign flips of the scores of other shapes.

Where the surface is right, the score s_c of each cluster of rows c for terms T that the surface lacks has mean 0,
whatever its rows share: |sum_c s_c|^2 is held against that with the signs of s_c flipped at random (Hemerik, Goeman &
Finos, "Robust testing in generalized linear models by sign flipping score contributions", JRSS B 2020). Scores are
efficient: T less what the fitted columns, weighted by the information, tell of it. T are, each by itself,

- the cube of the axis along which the boundary is longer: another bend than that of a parabola;
- bumps on a grid over both axes: anything smooth (le Cessie & van Houwelingen, "Testing the fit of a regression model
  via score tests in random effects models", Biometrics 1995), such as a second boundary, or a corner;

and the least of their p-values is held against the least of the same flips (Westfall & Young, "Resampling-based
multiple testing", 1993). A shape is refuted at ALPHA, which leaves a tenth of lines undecided: at 5%, a step or a
boundary that saturates passes on 10 x 10 with one seed in a tenth of sweeps, and most of these are wrong slopes.
Outcomes that come by accident, wherever a row stands, are no shape: the chance of such is fitted, below and above the
boundary, up to LAPSES (Wichmann & Hill, "The psychometric function", 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import rankdata

from analysis.boundaries.boundary import Boundary
from analysis.boundaries.firth import Firth
from analysis.boundaries.leeway import Surface
from analysis.boundaries.surface import refit

Array = npt.NDArray[np.float64]
ALPHA = 0.1
FLIPS = 999
LAPSES = 0.2  # a larger share of a side is no accident
GRID = 9  # bumps along each axis, as wide as they lie apart


@dataclass(frozen=True)
class Shape:
    """``p`` is that of the shape fitted, NaN where there is no boundary; ``misleads`` where it is refuted, or where a
    curve's middle, which it is reported at, lies beyond the y swept; ``because`` says it in words."""

    p: float
    misleads: bool
    because: str


def shape_test(boundary: Boundary, seed: int = 0) -> Shape:
    """Test the shape of a boundary, straight or a parabola; ``seed`` is that of the flips."""
    if boundary.kind == "none":
        return Shape(float("nan"), False, boundary.because)
    fitted = "parabola" if boundary.degree > 1 else "line"
    swept, middle = boundary.data[boundary.y], boundary.estimates["location"].value
    if boundary.degree > 1 and not swept.min() <= middle <= swept.max():
        return Shape(float("nan"), True, f"at the middle of {boundary.x} the parabola lies beyond the {boundary.y} "
                     "swept")
    surface = refit(boundary)
    p = _flipped(surface.fit, _others(surface), np.random.default_rng(seed))
    return Shape(p, p < ALPHA, f"it is no {fitted}, or not the only boundary (p = {p:.2g})" if p < ALPHA else
                 f"no shape but a {fitted} shows (p = {p:.2g})")


def _others(surface: Surface) -> list[Array]:
    """The terms, (n, k) each, that a surface lacks."""
    u, v = surface.fit.design[:, 1], surface.fit.design[:, 2]
    centers = [np.linspace(axis.min(), axis.max(), GRID) for axis in (u, v)]
    along, across = (np.exp(-0.5 * ((axis[:, None] - center) / (center[1] - center[0])) ** 2)
                     for axis, center in zip((u, v), centers, strict=True))
    return [surface.along[:, None] ** 3, (along[:, :, None] * across[:, None, :]).reshape(len(u), -1)]


def _flipped(fit: Firth, terms: list[Array], rng: np.random.Generator) -> float:
    """The p-value of none of the ``terms``."""
    low, high, p = _lapses(fit)
    spread = np.sqrt(fit.trials / (p * (1.0 - p)))  # of the mean of a row, for a unit of its Pearson residual
    rise = spread * (p - low) * (1.0 - high - p) / (1.0 - low - high)  # for a unit of the logit
    known = np.column_stack([fit.design * rise[:, None], spread * (1.0 - high - p), spread * (p - low)])
    known /= np.maximum(np.linalg.norm(known, axis=0), 1e-300)
    residual = (fit.ones - fit.trials * p) / np.sqrt(fit.trials * p * (1.0 - p))
    signs = np.vstack([np.ones(fit.clusters), rng.choice([-1.0, 1.0], (FLIPS, fit.clusters))])
    shares = []
    for term in terms:
        own = term * rise[:, None]
        own = own - known @ np.linalg.lstsq(known, own, rcond=None)[0]
        scores = np.zeros((fit.clusters, own.shape[1]))
        np.add.at(scores, fit.codes, own * residual[:, None])
        squares = ((signs @ scores) ** 2).sum(axis=1)
        shares.append(rankdata(-np.round(squares / max(squares.max(), 1e-300), 9), "max"))
    least = np.min(shares, axis=0)
    return float(np.mean(least <= least[0]))


def _lapses(fit: Firth) -> tuple[float, float, Array]:
    """The chance of 1 far below a boundary and of 0 far above it, with the probability p (n,) of each row: of greatest
    likelihood along the fitted surface, no steeper than it."""
    eta = fit.design @ fit.coefficients

    def at(parameters: Array) -> tuple[Array, Array, Array]:
        shift, rate, low, high = parameters
        rising = 1.0 / (1.0 + np.exp(-np.clip(shift + rate * eta, -20.0, 20.0)))
        return rising, np.clip(low + (1.0 - low - high) * rising, 1e-9, 1.0 - 1e-9), rising * (1.0 - rising)

    def loss(parameters: Array) -> tuple[float, Array]:
        rising, p, steep = at(parameters)
        steep *= 1.0 - parameters[2] - parameters[3]
        slope = (fit.trials - fit.ones) / (1.0 - p) - fit.ones / p
        gradient = np.array([slope @ steep, slope @ (steep * eta), slope @ (1.0 - rising), -slope @ rising])
        return -float(fit.ones @ np.log(p) + (fit.trials - fit.ones) @ np.log1p(-p)), gradient

    found = min((minimize(loss, (0.0, 1.0, lapse, lapse), jac=True, method="L-BFGS-B",
                          bounds=[(-5.0, 5.0), (0.3, 1.0), (0.0, LAPSES), (0.0, LAPSES)]) for lapse in (0.001, 0.1)),
                key=lambda result: float(result.fun))
    return float(found.x[2]), float(found.x[3]), at(found.x)[1]
