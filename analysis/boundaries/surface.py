"""The boundary of an outcome over two axes by a logistic surface, with intervals that hold however sharp it is.

logit p = b0 + b1 u + b2 v (+ b3 u^2), u = ln x and v = ln y, fitted with Firth's penalty. Slope, location and curvature
are ratios of coefficients with profile intervals, open where b2 may be 0. Where a line separates the outcomes, all
lines that do are in the intervals: how wide these are is set by the grid, and the width of the transition may be 0.
Rows of one cluster share chance; by default those at one point (x, y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

from analysis.boundaries.boundary import Boundary, Kind
from analysis.boundaries.firth import Firth, firth
from analysis.estimates import LEVEL, Estimate
from analysis.figures.style import is_numeric, spans_decades
from trials.errors import UserError, did_you_mean

Array = npt.NDArray[np.float64]
ALPHA = 0.05  # of the tests for any dependence, and for curvature
REACHED = 0.1  # a phase is reached where the fitted probability comes this near to 0, or to 1
LEAST_POINTS = 6  # distinct (x, y): twice the coefficients of a straight boundary
SHUFFLES = 999
NAMES = ("slope", "location", "width", "curvature")


@dataclass(frozen=True)
class Surface:
    """A logistic regression over standardized axes, z = (u - center) / scale: columns 1, z_u, z_v (, z_u^2)."""

    fit: Firth
    center: Array
    scale: Array

    def raw(self, coefficients: Array) -> Array:
        """Coefficients (..., C) of 1, z_u, z_v (, z_u^2) as those of 1, u, v (, u^2)."""
        (u, v), (su, sv) = self.center, self.scale
        change = np.array([[1, -u / su, -v / sv, u * u / su**2], [0, 1 / su, 0, -2 * u / su**2],
                           [0, 0, 1 / sv, 0], [0, 0, 0, 1 / su**2]])
        columns = coefficients.shape[-1]
        return np.asarray(coefficients @ change[:columns, :columns].T)


def fit_boundary(data: pd.DataFrame, outcome: str, x: str, y: str, *, log: tuple[bool, bool] | None = None,
                 cluster: str | None = None, censored: str | None = None, curved: bool | None = None,
                 level: float = LEVEL, seed: int = 0) -> Boundary:
    """Fit where ``outcome`` (0 or 1, a row a trial) changes over the columns ``x`` and ``y``.

    ``log`` says which axes are logarithmic; by default those that are positive and span more than a decade. ``cluster``
    names the column of what shares chance, ``censored`` that of rows stopped before the outcome could show: they are no
    evidence, and left out. ``curved`` None takes a straight boundary unless the test says at 5% that it is not.
    ``curvature`` is d2v*/du2. ``p_none`` comes from shuffling the points, with ``seed``. Raises UserError for a column
    that is not there or not numbers, an outcome that is not 0 or 1, too few points, and points all on one line.
    """
    table = outcome_table(data, outcome, (x, y), cluster, censored)
    used = table[~table["censored"]]
    log = (spans_decades(used[x]), spans_decades(used[y])) if log is None else log
    rng = np.random.default_rng(seed)
    straight, p_none = _surface(used, outcome, (x, y), log, False), _p_none(used, outcome, (x, y), log, rng)
    left_out = f"; {len(table) - len(used)} censored rows left out" if len(used) < len(table) else ""
    if p_none > ALPHA:
        ones = int(used[outcome].sum())
        because = (f"all {len(used)} rows are {used[outcome].iloc[0]:.0f}" if ones in (0, len(used)) else
                   f"{ones} of {len(used)} rows are 1, and they may lie anywhere (p = {p_none:.2g})")
        unknown = Estimate(np.nan, -np.inf, np.inf, level)
        return Boundary(x, y, log, outcome, "none", because + left_out, dict.fromkeys(NAMES[:3], unknown),
                        np.full(3, np.nan), np.empty((0, 3)), table, p_none, np.nan, "shuffled points")
    surface, p_straight = straight, np.nan
    if used[x].nunique() > 2:
        bent = _surface(used, outcome, (x, y), log, True)
        p_straight = bent.fit.test(3, 2, 0.0)
        surface = bent if curved or (curved is None and p_straight < ALPHA) else straight
    elif curved:
        raise UserError(f"boundary of {outcome}: {x} has {used[x].nunique()} values; a curved boundary takes three")
    estimates = _estimates(surface, log, level)
    kind, because = _judge(surface, p_none)
    if np.isinf(estimates["slope"].low):
        because += f"; it may run along {y}, so that its slope is open"
    fit = surface.fit
    method = (f"Firth-penalized logistic regression, profile likelihood intervals, {fit.clusters} clusters "
              f"({cluster or f'points of {x} and {y}'})")
    return Boundary(x, y, log, outcome, kind, because + left_out, estimates, surface.raw(fit.coefficients),
                    surface.raw(fit.draws(2, rng)), table, p_none, p_straight, method)


def slope_test(boundary: Boundary, slope: float = 1.0) -> float:
    """p-value of dv*/du = ``slope`` (at the mean of u if curved) by the likelihood ratio; NaN for none."""
    if boundary.kind == "none":
        return float("nan")
    surface = _of(boundary)
    return surface.fit.test(1, 2, slope * surface.scale[0] / surface.scale[1])


def same_slope_test(boundaries: Sequence[Boundary]) -> float:
    """p-value of one slope for all, such as of two optimizers: the sum of their likelihood ratios at the slope where it
    is least, against chi-square. They must not share rows; NaN where one of them is none."""
    if any(boundary.kind == "none" for boundary in boundaries):
        return float("nan")
    surfaces = [_of(boundary) for boundary in boundaries]

    def total(angle: float) -> float:
        return sum(surface.fit.likelihood_ratio(1, 2, np.tan(angle) * surface.scale[0] / surface.scale[1])
                   for surface in surfaces)

    angles = np.linspace(-np.pi / 2, np.pi / 2, 41)[1:-1]
    best = angles[np.argmin([total(angle) for angle in angles])]
    least = minimize_scalar(total, bounds=(best - 0.08, best + 0.08), method="bounded").fun
    return float(chi2.sf(least, len(surfaces) - 1))


def outcome_table(data: pd.DataFrame, outcome: str, axes: Sequence[str], cluster: str | None, censored: str | None
                  ) -> pd.DataFrame:
    """The columns of ``axes``, ``outcome`` as 0 and 1 (NaN where censored), ``cluster`` and ``censored``, checked."""
    place = f"boundary of {outcome}"
    for name in (outcome, *axes, *(extra for extra in (cluster, censored) if extra)):
        if name not in data:
            raise UserError(f"{place}: no column called {name!r}; {did_you_mean(name, map(str, data.columns))}")
    data = data.reset_index(drop=True)  # an index may repeat itself, as that of tables put together
    left_out = data[censored].astype(bool) if censored else pd.Series(False, data.index)
    table = pd.DataFrame({name: data[name] for name in axes})
    for name in axes:
        if not is_numeric(data[name]) or not np.isfinite(data[name].astype(float)).all():
            raise UserError(f"{place}: {name} must be finite numbers; leave out the rows where it is not")
    seen = data[outcome][~left_out]
    if not seen.isin([0, 1]).all():
        raise UserError(f"{place}: {outcome} must be 0 or 1, but has {seen[~seen.isin([0, 1])].iloc[0]}; "
                        "make a column of it that says yes or no, and call the rows censored that do not")
    points = table.groupby(list(axes)).ngroup()
    table = table.assign(**{outcome: seen.astype(float)}, cluster=data[cluster] if cluster else points,
                         censored=left_out)
    if points[~left_out].nunique() < LEAST_POINTS:
        raise UserError(f"{place}: {points[~left_out].nunique()} points of {' and '.join(axes)} that are not censored; "
                        f"it takes {LEAST_POINTS}")
    return table


def coordinates(table: pd.DataFrame, axes: Sequence[str], log: Sequence[bool]) -> Array:
    """The columns of ``axes``, (n, axes), as logarithms where they are ``log``."""
    for name, logarithmic in zip(axes, log, strict=True):
        if logarithmic and not (table[name] > 0).all():
            raise UserError(f"{name} = {table[name].min():g} has no logarithm; leave it out, or take {name} as it is")
    return np.column_stack([np.log(table[name].astype(float)) if logarithmic else table[name].astype(float)
                            for name, logarithmic in zip(axes, log, strict=True)])


def tally(values: Array, outcome: pd.Series, cluster: pd.Series) -> tuple[Array, Array, Array, npt.NDArray[np.intp]]:
    """Rows at one point, values (n, 2), and of one cluster as one, so that more seeds cost nothing: the points (m, 2),
    ones (m,) of trials (m,), and codes of clusters (m,)."""
    rows = pd.DataFrame({"u": values[:, 0], "v": values[:, 1], "cluster": pd.factorize(cluster)[0],
                         "outcome": outcome.to_numpy()})
    counts = rows.groupby(["u", "v", "cluster"])["outcome"].agg(["sum", "size"]).reset_index()
    return (counts[["u", "v"]].to_numpy(), counts["sum"].to_numpy(), counts["size"].to_numpy(float),
            counts["cluster"].to_numpy())


def _surface(used: pd.DataFrame, outcome: str, axes: tuple[str, str], log: tuple[bool, bool], curved: bool) -> Surface:
    values = coordinates(used, axes, log)
    center, scale = values.mean(axis=0), values.std(axis=0)
    points, ones, trials, clusters = tally(values, used[outcome], used["cluster"])
    z = (points - center) / np.where(scale > 0, scale, 1.0)
    design = np.column_stack([np.ones(len(z)), z] + [z[:, 0] ** 2] * curved)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise UserError(f"boundary of {outcome}: the points of {axes[0]} and {axes[1]} lie on one line; sweep both")
    return Surface(firth(design, ones, trials, clusters), center, scale)


def _of(boundary: Boundary) -> Surface:
    used = boundary.data[~boundary.data["censored"]]
    return _surface(used, boundary.outcome, (boundary.x, boundary.y), boundary.log, len(boundary.coefficients) > 3)


def _p_none(used: pd.DataFrame, outcome: str, axes: tuple[str, str], log: tuple[bool, bool], rng: np.random.Generator
            ) -> float:
    """p-value of "no dependence on either axis": how often the score statistic of shuffled points is as large.

    A point keeps its trials, so that what they share does not count as evidence (Fisher's permutation test).
    """
    points = used.assign(residual=used[outcome] - used[outcome].mean(), size=1.0, u=0.0, v=0.0)
    points[["u", "v"]] = coordinates(used, axes, log)
    points = points.groupby(["u", "v"])[["residual", "size"]].sum().reset_index()
    z = points[["u", "v"]].to_numpy()
    size = points["size"].to_numpy()
    z = z - size @ z / size.sum()
    z = z @ np.linalg.inv(np.linalg.cholesky((z.T * size) @ z)).T  # both axes count the same, whatever their units
    residual = points["residual"].to_numpy()
    statistic = ((residual @ z) ** 2).sum()
    rows = np.tile(residual, (SHUFFLES // 9, 1))  # a ninth at a time: there may be many points
    shuffled = [((rng.permuted(rows, axis=1) @ z) ** 2).sum(axis=1) for _ in range(9)]
    return float((1 + np.sum(np.array(shuffled) >= statistic * (1 - 1e-9))) / (1 + SHUFFLES))


def _estimates(surface: Surface, log: tuple[bool, bool], level: float) -> dict[str, Estimate]:
    fit, (su, sv) = surface.fit, map(float, surface.scale)
    parameters = {"location": (0, 1.0), "slope": (1, sv / su), "curvature": (3, 2 * sv / su**2)}
    estimates = {}
    for name, (column, unit) in parameters.items():
        if column < len(fit.coefficients):
            value, low, high = fit.ratio(column, 2, level)
            estimates[name] = Estimate(value * unit, low * unit, high * unit, level)
    at = estimates["location"]
    value, low, high = (surface.center[1] + sv * v for v in (at.value, at.low, at.high))
    if log[1]:
        with np.errstate(over="ignore"):  # a boundary along y is nowhere
            value, low, high = np.exp([value, low, high])
    estimates["location"] = Estimate(float(value), float(low), float(high), level)
    steepness, low, high = fit.size(2, level)
    unit = 2.0 * float(np.log(9.0)) * sv
    estimates["width"] = Estimate(unit / steepness, unit / high, unit / low if low else np.inf, level)
    if np.isinf(estimates["slope"].low):  # b2 may be 0, and each of these is a ratio to it: a number would be noise
        estimates = {name: replace(estimate, value=np.nan) for name, estimate in estimates.items()}
    return {name: estimates[name] for name in NAMES if name in estimates}


def _judge(surface: Surface, p_none: float) -> tuple[Kind, str]:
    eta = surface.fit.design @ surface.fit.coefficients
    low, high = 1.0 / (1.0 + np.exp(-np.array([eta.min(), eta.max()])))
    kind: Kind = "boundary" if low < REACHED and high > 1 - REACHED else "crossover"
    only = "only " if kind == "crossover" else ""
    return kind, f"its probability goes {only}from {low:.2g} to {high:.2g} over what was swept (p = {p_none:.2g})"
