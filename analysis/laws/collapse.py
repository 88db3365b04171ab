"""Data collapse: whether curves for different values of a scale are one curve once that scale is divided out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import fdtrc

from analysis.estimates import LEVEL, Estimate
from analysis.laws.adequacy import setting_means, shifts
from analysis.laws.fit import numbers
from analysis.laws.intervals import chance, reach
from analysis.laws.law import Array
from trials.errors import UserError, no_column

SIZES = (2, 3, 4, 5, 6, 7, 8)  # coefficients of the master curve: up to 4 a polynomial, then a cubic spline
OVERLAP = 0.3  # neighbouring curves are compared only while they share this part of the shorter one
FEWEST = 8  # rows, or means
GRID = 41  # exponents tried over the range where curves overlap


@dataclass(frozen=True)
class Collapse:
    """y as one function of x / scale^exponent.

    ``estimates`` has ``exponent`` and, where y is scaled too (y / scale^y_exponent is that function), ``y_exponent``.
    ``data`` has the rows: x, y, scale, ``collapsed_x`` (x / scale^exponent), ``collapsed_y``, ``fitted`` (the master
    curve there), ``residual`` (of ln y, or of y) and ``cluster``. ``sigma`` is the standard deviation of residuals and
    ``size`` the number of coefficients of the master curve. ``p_collapse`` is the p-value of "one curve" in the F test
    against curves that each scale may also shift up or down and tilt: a small one says that not even the best exponent
    makes them one. With clusters it is that of the means at each x and scale; NaN where these are too few.
    """

    x: str
    y: str
    scale: str
    estimates: Mapping[str, Estimate]
    data: pd.DataFrame = field(repr=False)
    sigma: float
    size: int
    p_collapse: float
    method: str


@dataclass(frozen=True)
class _Curves:
    """u = ln x, w = ln scale and the target, (n,) each; ``scaled``: the target follows w as well."""

    u: Array
    w: Array
    target: Array
    scaled: bool

    def design(self, exponent: float, size: int) -> Array:
        """Columns of the master curve over u - exponent w, a cubic spline with knots at its quantiles, and of w where y
        is scaled."""
        place = self.u - exponent * self.w
        order = np.sort(place)
        place, order = ((each - order[0]) / max(order[-1] - order[0], 1e-12) for each in (place, order))
        knots = np.interp(np.linspace(0, 1, max(size - 2, 2))[1:-1], np.linspace(0, 1, len(order)), order)
        columns = [place[:, None] ** np.arange(min(size, 4)), np.maximum(place[:, None] - knots, 0.0) ** 3]
        return np.hstack([*columns, (self.w - self.w.mean())[:, None]] if self.scaled else columns)

    def penalized(self, exponent: float) -> tuple[float, int]:
        """The least sum of squares over the sizes, each times what makes its logarithm AICc / n, and that size."""
        fitting = [size for size in SIZES if len(self.u) > size + 4]
        return min((self.criterion(self.design(exponent, size), size + self.scaled + 2), size) for size in fitting)

    def criterion(self, design: Array, k: int) -> float:
        """The sum of squares that ``design`` leaves, times what makes its logarithm AICc / n with k parameters."""
        residual = self.target - design @ _solve(design, self.target)
        return float((residual**2).sum() * np.exp(2 * k / (len(residual) - k - 1)))

    def jacobian(self, exponent: float, size: int, step: float) -> tuple[Array, Array]:
        """(Derivatives of the fitted curve with respect to the exponent and its coefficients, these)."""
        design = self.design(exponent, size)
        coefficients = _solve(design, self.target)
        shift = (self.design(exponent + step, size) - self.design(exponent - step, size)) @ coefficients / (2 * step)
        return np.column_stack([shift, design]), coefficients

    def told(self, least: float) -> bool:
        """Whether exponents can be told apart at all: whether ``least``, that of the best of many exponents and curves,
        is beyond chance (AICc lower by 10) better than a curve for which the exponent does not matter, which is a
        constant, or a power law where y is scaled."""
        plain = self.design(0.0, 2)[:, : 3 if self.scaled else 1]
        return least < self.criterion(plain, plain.shape[1] + 1) * math.exp(-10 / len(self.u))

    def best(self, low: float, high: float) -> tuple[float, float]:
        """The exponent from low to high with the least ``penalized``, and that: the best of a grid, polished."""
        grid = np.linspace(low, high, GRID)
        values = [self.penalized(exponent)[0] for exponent in grid]
        first = int(np.argmin(values))
        found = minimize_scalar(lambda exponent: self.penalized(exponent)[0], method="bounded",
                                bounds=(grid[max(first - 1, 0)], grid[min(first + 1, GRID - 1)]),
                                options={"xatol": 1e-6 * (high - low)})
        return (float(found.x), float(found.fun)) if found.fun < values[first] else (float(grid[first]), values[first])


def _solve(design: Array, target: Array) -> Array:
    """Coefficients by least squares."""
    return np.asarray(np.linalg.lstsq(design, target, rcond=None)[0])


def collapse(data: pd.DataFrame, x: str, y: str, scale: str, *, scale_y: bool = False, log_y: bool = True,
             cluster: str | None = None, crossed: str | None = None, level: float = LEVEL) -> Collapse:
    """Find the exponent c for which y is one function of x / scale^c; with ``scale_y`` y / scale^d is, with d fitted.

    The master curve is a polynomial or cubic spline of ln x - c ln scale with 2 to 8 coefficients, fitted to ln y (to y
    without ``log_y``) by least squares. Intervals are profiles of the sum of squares, as in ``intervals.profile``, with
    the number of coefficients that AICc prefers at each c, for a curve that bends by chance would seem to tell one c
    from another; rows of one ``cluster`` share their chance. Only such c are tried at which neighbouring curves overlap
    by 30%, for curves apart from each other say nothing about being one; an end of the interval beyond is infinite. So
    are all ends where a constant does as well as any curve, or a power law for a scaled y: then every c does.

    Where settings of x and scale lack some of the ``crossed`` seeds, what these do to all settings alike is taken out.
    Whether there is one curve is tested on rows, or with clusters on the means at each x and scale, for replicates say
    nothing of the chance of a setting.

    Raises UserError for columns that are missing or hold no numbers, values not above 0 where logarithms are taken,
    fewer than 8 rows or two values of ``scale``, and curves that overlap for no c.
    """
    if scale_y and not log_y:
        raise UserError("collapse: a power of the scale is divided out of ln y; leave out log_y=False or scale_y")
    if crossed is not None and crossed not in data:
        raise no_column("collapse", crossed, data.columns)
    data = data.reset_index(drop=True)
    rows, codes = numbers(data, (x, y, scale), "collapse", cluster)
    for name in (x, scale, y)[:3 if log_y else 2]:
        if rows[name].min() <= 0:
            raise UserError(f"collapse: {name} = {rows[name].min():g} has no logarithm; leave out such rows")
    if rows[scale].nunique() < 2 or len(rows) < FEWEST:
        raise UserError(f"collapse: {len(rows)} rows with {rows[scale].nunique()} values of {scale} are too few; it "
                        f"takes {FEWEST} rows and 2 values at least")
    u, w = np.log(rows[x].to_numpy()), np.log(rows[scale].to_numpy())
    target = np.log(rows[y].to_numpy()) if log_y else rows[y].to_numpy()
    if crossed is not None:
        target = target - shifts(target, _settings(u, w)[1], pd.factorize(data.loc[rows.index, crossed])[0])
    low, high = _overlapping(u, w)
    if low >= high:
        raise UserError(f"collapse: curves over {x} for neighbouring values of {scale} overlap nowhere; sweep several "
                        f"values of {x} for each")
    curves, step = _Curves(u, w, target, scale_y), 1e-5 * (high - low)
    best, least = curves.best(low, high)
    size = curves.penalized(best)[1]
    jacobian, coefficients = curves.jacobian(best, size, step)
    residual = target - jacobian[:, 1:] @ coefficients
    known = chance(jacobian, residual, codes)
    critical = known.critical(level)
    squares, told = float((residual**2).sum()), curves.told(least)

    def estimate(place: int, value: float, least_at: Callable[[float], float], limits: tuple[float, float]) -> Estimate:
        lowest = max(least_at(value), 1e-300)

        def end(sign: int, limit: float) -> float:
            def root(distance: float) -> float:
                excess = least_at(value + sign * distance) / lowest - 1.0
                return float(np.sqrt(max(excess, 0.0) * squares) / known.sigma[place])
            far = abs(limit - value) if told else 0.0
            return value + sign * reach(root, critical[place] * known.se[place], critical[place], far)
        return Estimate(value, end(-1, limits[0]), end(1, limits[1]), level)

    estimates = {"exponent": estimate(0, best, lambda exponent: curves.penalized(exponent)[0], (low, high))}
    y_exponent = 0.0
    if scale_y:
        y_exponent, far = float(coefficients[-1]), 4.0 * float(np.ptp(target) / np.ptp(w))
        estimates["y_exponent"] = estimate(
            -1, y_exponent, lambda power: replace(curves, target=target - power * w, scaled=False).best(low, high)[1],
            (y_exponent - far, y_exponent + far))
    scaled = target - y_exponent * w
    both = np.column_stack([scaled, scaled - residual])
    both = np.exp(both) if log_y else both
    used = rows.assign(collapsed_x=np.exp(u - best * w), collapsed_y=both[:, 0], fitted=both[:, 1], residual=residual,
                       cluster=np.arange(len(rows)) if codes is None else codes)
    p_collapse = _p_collapse(curves, best, size, step) if cluster is None else _p_of_means(curves, low, high)
    method = (f"profile of a master curve with {size} coefficients, t with {known.dof[0]:.3g} degrees of freedom, "
              f"exponents from {low:.2g} to {high:.2g} tried" + ("" if told else "; none is told from another"))
    return Collapse(x, y, scale, estimates, used, float(np.sqrt(squares / max(len(rows) - jacobian.shape[1], 1))),
                    size, p_collapse, method)


def _overlapping(u: Array, w: Array) -> tuple[float, float]:
    """The exponents for which the typical two neighbouring curves overlap enough."""
    curves = pd.DataFrame({"u": u}).groupby(w)["u"].agg(["min", "max"]).sort_index()
    begin, end, scale = curves["min"].to_numpy(), curves["max"].to_numpy(), curves.index.to_numpy()
    length = end - begin
    middle = np.diff((begin + end) / 2) / np.diff(scale)
    slack = ((length[1:] + length[:-1]) / 2 - OVERLAP * np.minimum(length[1:], length[:-1])) / np.diff(scale)
    return float(np.median(middle - slack)), float(np.median(middle + slack))


def _settings(u: Array, w: Array) -> tuple[Array, npt.NDArray[np.intp]]:
    """(The different pairs of u and w, which of them each row has)."""
    cells, codes = np.unique(np.column_stack([u, w]), axis=0, return_inverse=True)
    return cells, codes.ravel()


def _p_of_means(curves: _Curves, low: float, high: float) -> float:
    """``_p_collapse`` of the means at each x and scale, fitted by themselves."""
    cells, codes = _settings(curves.u, curves.w)
    if len(cells) < FEWEST:
        return float("nan")
    means = _Curves(cells[:, 0], cells[:, 1], setting_means(curves.target, codes), curves.scaled)
    best = means.best(low, high)[0]
    return _p_collapse(means, best, means.penalized(best)[1], 1e-5 * (high - low))


def _p_collapse(curves: _Curves, exponent: float, size: int, step: float) -> float:
    """The F test of what a shift and a tilt for each curve explain beyond the master curve."""
    jacobian, coefficients = curves.jacobian(exponent, size, step)
    residual, place = curves.target - jacobian[:, 1:] @ coefficients, curves.u - exponent * curves.w
    curve = (curves.w[:, None] == np.unique(curves.w)).astype(float)
    wider = np.column_stack([jacobian, curve, curve * (place - place.mean())[:, None]])
    wider = wider / np.maximum(np.linalg.norm(wider, axis=0), 1e-100)
    coefficients, _, rank, _ = np.linalg.lstsq(wider, residual, rcond=1e-9)
    extra, free = int(rank) - jacobian.shape[1], len(residual) - int(rank)
    unexplained = float(((residual - wider @ coefficients) ** 2).sum())
    added = max(float((residual**2).sum()) - unexplained, 0.0)
    if extra <= 0 or free <= 0 or unexplained <= 0:
        return float("nan")
    return float(fdtrc(extra, free, added / extra / (unexplained / free)))
