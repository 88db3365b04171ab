"""The boundary of an outcome over two axes by a logistic surface, with intervals that hold however sharp it is.

logit p = b0 + b1 u + b2 v (+ b3 u^2), u = ln x and v = ln y, fitted with Firth's penalty; given further axes, each adds
its main effect, and the boundary is that at their middle. Slope, location and curvature are ratios of coefficients with
profile intervals, open where b2 may be 0. Where the data leave room for another shape, intervals hold those of it as
well (leeway.py). Where a line separates the outcomes, all lines that do are in the intervals: how wide these are is set
by the grid, and the width of the transition may be 0. Rows of one cluster share chance; by default those at one point
(x, y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

from analysis.boundaries.boundary import Boundary, Kind
from analysis.boundaries.covariates import are_independent, covariates
from analysis.boundaries.firth import firth
from analysis.boundaries.leeway import Surface
from analysis.boundaries.outcomes import coordinates, dependence, dependence_of_rows, outcome_table, tally
from analysis.boundaries.seeds import Seeds, Shifts
from analysis.estimates import LEVEL, Estimate
from analysis.figures.style import spans_decades
from trials.errors import UserError

Array = npt.NDArray[np.float64]
ALPHA = 0.05  # of the tests for any dependence, and for curvature
REACHED = 0.1  # a phase is reached where the fitted probability comes this near to 0, or to 1
NAMES = ("slope", "location", "width", "curvature")


def fit_boundary(data: pd.DataFrame, outcome: str, x: str, y: str, *, log: tuple[bool, bool] | None = None,
                 given: Sequence[str] = (), cluster: str | None = None, crossed: str | None = None,
                 censored: str | None = None, curved: bool | None = None, level: float = LEVEL, seed: int = 0
                 ) -> Boundary:
    """Fit where ``outcome`` (0 or 1, a row a trial) changes over the columns ``x`` and ``y``.

    ``log`` says which axes are logarithmic; by default those that are positive and span more than a decade. Further
    axes ``given`` may move the boundary (in logarithms where all values are above 0, by category where they are no
    numbers); it is reported at their mean. ``cluster`` names the column of what shares chance, ``crossed`` that of
    seeds, which stand at many points and shift it at all of them alike (seeds.py), ``censored`` that of rows stopped
    before the outcome could show: they are no evidence, and left out. ``curved`` None takes a straight boundary unless
    the test says at 5% that it is not; False says that it is straight, whatever the data say. ``curvature`` is
    d2v*/du2. ``p_none`` comes from shuffling the points, and for a crossover the values of each axis as well, with
    ``seed``. Raises UserError for a column that is not there or not numbers, an outcome that is not 0 or 1, too few
    points, and points all on one line.
    """
    table = outcome_table(data, outcome, (x, y), cluster, censored, (*given, *([crossed] if crossed else [])))
    used = table[~table["censored"]]
    log = (spans_decades(used[x]), spans_decades(used[y])) if log is None else log
    rng = np.random.default_rng(seed)
    others, seeds = _beside(used, (x, y), given, crossed)
    surface = surface_of(used, outcome, (x, y), log, 1, others)
    if curved and used[x].nunique() < 3:
        raise UserError(f"boundary of {outcome}: {x} has {used[x].nunique()} values; a curved boundary takes three")
    p_none, p_straight = dependence(used, outcome, (x, y), log, others, rng), np.nan
    if p_none <= ALPHA and used[x].nunique() > 2:
        bent = surface_of(used, outcome, (x, y), log, 2, others)
        p_straight = bent.fit.test(3, 2, 0.0)
        surface = bent if curved or (curved is None and p_straight < ALPHA) else surface
    kind, because = _judge(surface)
    shapes, p_cubic = [surface], np.nan
    if p_none <= ALPHA and curved is not False:
        shapes, p_cubic = surface.likely()
    if kind == "crossover":  # chance that a row of the grid shares makes such, though none of these a boundary
        p_none = max(p_none, dependence_of_rows(used, outcome, (x, y), log, others, rng))
    because += f" (p = {p_none:.2g})"
    left_out = f"; {len(table) - len(used)} censored rows left out" if len(used) < len(table) else ""
    if p_none > ALPHA:
        ones = int(used[outcome].sum())
        because = (f"all {len(used)} rows are {used[outcome].iloc[0]:.0f}" if ones in (0, len(used)) else
                   f"{ones} of {len(used)} rows are 1, and they may lie anywhere (p = {p_none:.2g})")
        unknown = Estimate(np.nan, -np.inf, np.inf, level)
        return Boundary(x, y, log, outcome, "none", because + left_out, dict.fromkeys(NAMES[:3], unknown),
                        np.full(3, np.nan), np.empty((0, 3)), table, p_none, np.nan, "shuffled points", tuple(given),
                        crossed)
    shifts = Shifts.of(surface.fit, seeds.groups) if seeds else None
    estimates = _estimates(shapes, log, level, shifts)
    if np.isinf(estimates["slope"].low):
        because += f"; it may run along {y}, so that its slope is open"
    fit = surface.fit
    method = (f"Firth-penalized logistic regression, profile likelihood intervals, {fit.clusters} clusters "
              f"({cluster or f'points of {x} and {y}'})")
    method += f", at the middle of {' and '.join(given)}" if given else ""
    method += f"; they hold those of a cubic (p = {p_cubic:.2g}) and of the middle third as well" if shapes[1:] else ""
    if seeds and shifts:
        method += (f"; {seeds.count} values of {crossed} shift it (sd {shifts.sd * surface.scale[1]:.2g} in "
                   f"{'ln ' if log[1] else ''}{y}): its location is their mean, by {shifts}")
    elif crossed and used[crossed].nunique() == 1:
        method += f"; of one {crossed} alone, and another may shift it"
    moving = covariates(used, given)
    table.loc[~table["censored"], "offset"] = moving @ fit.coefficients[surface.columns:][:moving.shape[1]]
    draws = fit.draws(2, rng, surface.columns)
    if shifts:
        draws[:, 0] -= draws[:, 2] * shifts.draws(len(draws), rng)
    return Boundary(x, y, log, outcome, kind, because + left_out, estimates, surface.raw(fit.coefficients),
                    surface.raw(draws), table, p_none, p_straight, method, tuple(given), crossed, p_cubic)


def slope_test(boundary: Boundary, slope: float = 1.0) -> float:
    """p-value of dv*/du = ``slope`` (at the mean of u if curved) by the likelihood ratio; NaN for none."""
    if boundary.kind == "none":
        return float("nan")
    return max(surface.fit.test(1, 2, slope * surface.scale[0] / surface.scale[1]) for surface in _likely(boundary))


def same_slope_test(boundaries: Sequence[Boundary]) -> float:
    """p-value of one slope for all, such as of two optimizers: the sum of their likelihood ratios at the slope where it
    is least, against chi-square. They must not share rows; NaN where one of them is none."""
    if any(boundary.kind == "none" for boundary in boundaries):
        return float("nan")
    likely = [_likely(boundary) for boundary in boundaries]

    def total(angle: float) -> float:
        return sum(min(surface.fit.likelihood_ratio(1, 2, np.tan(angle) * surface.scale[0] / surface.scale[1])
                       for surface in surfaces) for surfaces in likely)

    angles = np.linspace(-np.pi / 2, np.pi / 2, 41)[1:-1]
    best = angles[np.argmin([total(angle) for angle in angles])]
    least = minimize_scalar(total, bounds=(best - 0.08, best + 0.08), method="bounded").fun
    return float(chi2.sf(least, len(likely) - 1))


def surface_of(used: pd.DataFrame, outcome: str, axes: tuple[str, str], log: tuple[bool, bool], degree: int,
               others: Array) -> Surface:
    """Fit the surface of this degree in u, with ``others`` (n, k) as further columns of mean 0."""
    values = coordinates(used, axes, log)
    center, scale = values.mean(axis=0), values.std(axis=0)
    z = (values - center) / np.where(scale > 0, scale, 1.0)
    own = np.column_stack([z] + [z[:, 0] ** power for power in range(2, degree + 1)])
    if not are_independent(own):
        raise UserError(f"boundary of {outcome}: the points of {axes[0]} and {axes[1]} lie on one line; sweep both")
    if not are_independent(np.column_stack([own, others])):
        raise UserError(f"boundary of {outcome}: what is given follows from {axes[0]} and {axes[1]}, or from one "
                        "another; give less")
    points, ones, trials, clusters = tally(np.column_stack([own, others]), used[outcome], used["cluster"])
    design = np.column_stack([np.ones(len(points)), points])
    return Surface(firth(design, ones, trials, clusters), center, scale, 1 + own.shape[1])


def refit(boundary: Boundary) -> Surface:
    """The surface of a boundary."""
    used = boundary.data[~boundary.data["censored"]]
    return surface_of(used, boundary.outcome, (boundary.x, boundary.y), boundary.log, boundary.degree,
                      beside(boundary)[0])


def _likely(boundary: Boundary) -> list[Surface]:
    """The surfaces whose intervals count."""
    surface = refit(boundary)
    return [surface] if np.isnan(boundary.p_cubic) else surface.likely()[0]


def beside(boundary: Boundary) -> tuple[Array, Seeds | None]:
    """The columns of what was fitted beside x and y, one row for each row fitted, and the seeds among them."""
    used = boundary.data[~boundary.data["censored"]]
    return _beside(used, (boundary.x, boundary.y), boundary.given, boundary.crossed)


def _beside(used: pd.DataFrame, axes: Sequence[str], given: Sequence[str], crossed: str | None
            ) -> tuple[Array, Seeds | None]:
    others = covariates(used, given)
    seeds = Seeds.of(used[crossed], used.groupby(list(axes)).ngroup()) if crossed else None
    return (others if seeds is None else np.column_stack([others, seeds.columns])), seeds


def _estimates(shapes: Sequence[Surface], log: tuple[bool, bool], level: float, shifts: Shifts | None
               ) -> dict[str, Estimate]:
    """The values of the first surface, and what the intervals of any hold."""
    surface = shapes[0]
    su, sv = map(float, surface.scale)
    parameters = {"location": (0, 1.0), "slope": (1, sv / su), "curvature": (3, 2 * sv / su**2)}
    estimates = {}
    for name, (column, unit) in parameters.items():
        if column < surface.columns:
            value, low, high = _hull([shape.fit.ratio(column, 2, level) for shape in shapes
                                      if column < shape.columns])
            estimates[name] = Estimate(value * unit, low * unit, high * unit, level)
    at = estimates["location"]
    ends = shifts.widened(at.value, at.low, at.high, level) if shifts else (at.low, at.high)
    value, low, high = (surface.center[1] + sv * v for v in (at.value, *ends))
    if log[1]:
        with np.errstate(over="ignore"):  # a boundary along y is nowhere
            value, low, high = np.exp([value, low, high])
    estimates["location"] = Estimate(float(value), float(low), float(high), level)
    steepness, low, high = _hull([shape.fit.size(2, level) for shape in shapes])
    unit = 2.0 * float(np.log(9.0)) * sv
    estimates["width"] = Estimate(unit / steepness, unit / high, unit / low if low else np.inf, level)
    if np.isinf(estimates["slope"].low):  # b2 may be 0, and each of these is a ratio to it: a number would be noise
        estimates = {name: replace(estimate, value=np.nan) for name, estimate in estimates.items()}
    return {name: estimates[name] for name in NAMES if name in estimates}


def _hull(intervals: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The first value, and the ends of all intervals."""
    return intervals[0][0], min(low for _, low, _ in intervals), max(high for _, _, high in intervals)


def _judge(surface: Surface) -> tuple[Kind, str]:
    own = slice(surface.columns)  # all else at its middle
    eta = surface.fit.design[:, own] @ surface.fit.coefficients[own]
    low, high = 1.0 / (1.0 + np.exp(-np.array([eta.min(), eta.max()])))
    kind: Kind = "boundary" if low < REACHED and high > 1 - REACHED else "crossover"
    only = "only " if kind == "crossover" else ""
    return kind, f"its probability goes {only}from {low:.2g} to {high:.2g} over what was swept"
