"""The best, or the largest stable, value of one axis as a function of another: found for each, then a law of them all.

The law carries the uncertainty of what it is fitted to: its intervals rest on the greater of two variances, that of the
scatter of the optima about the law and that of the errors with which each was found. Neither does alone: a few optima
may lie on a line by chance, and largest stable values often do by the grid; errors know nothing of a law that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.polynomial import Polynomial
from scipy.optimize import isotonic_regression
from scipy.special import chdtrc, stdtr, stdtrit

from analysis.estimates import LEVEL
from analysis.laws.brackets import through
from analysis.laws.fit import DRAWS, fit_law, numbers, pose
from analysis.laws.intervals import chance, draws, profile
from analysis.laws.law import Array, Law, LawFit
from trials.errors import UserError

NEIGHBOURS = 2  # grid points on either side of the best: with fewer there is no telling how far it is from a parabola
HIGHER = 0.05  # a higher power is taken where the next is this unlikely to be chance


def optimum(data: pd.DataFrame, axis: str, y: str, by: str, *, mode: Literal["min", "max"] = "min",
            cluster: str | None = None, level: float = LEVEL) -> pd.DataFrame:
    """Where ``y`` is least (greatest for "max") over ``axis``, for each value of ``by``: a row each, ascending.

    From a parabola in ln axis, of ln y if all y are positive, through the trials at the best value on the grid (by
    means smoothed 1:2:1) and at its two neighbours on either side; from a cubic or quartic where, over all values of
    ``by`` (Fisher's combined test), the next power is significant. The interval has the places where the slope may be 0
    (Fieller 1954); an end is 0 or infinite where that is not within the neighbours. A skewness that cannot be told from
    chance moves the optimum, by up to a third of the grid's step, for all of ``by`` alike. Rows with the same value in
    ``cluster`` share their chance. Values of the axis where a trial has no finite y, for it diverged, are no optima; at
    their border the optimum is the best value on the grid, and its interval reaches to the neighbours.

    Columns: ``by``, ``axis`` (the optimum; NaN where the curve has none), ``low``, ``high``, ``se`` (of its logarithm)
    and its ``dof``, ``rows`` fitted, ``at_edge``: the best is the first or last value of the grid, or beyond. Raises
    UserError for missing columns, no numbers, an axis not above 0, or fewer than 4 values of it.
    """
    rows, codes = numbers(data, (by, axis, y), "optimum", cluster)
    _check_positive(rows, axis, "optimum")
    rows = rows.assign(cluster=np.arange(len(rows)) if codes is None else codes,
                       goal=(np.log(rows[y]) if (rows[y] > 0).all() else rows[y]) * (1 if mode == "min" else -1))
    tried = numbers(data, (by, axis), "optimum")[0]
    lost = pd.MultiIndex.from_frame(tried.drop(rows.index))
    rows = rows[~pd.MultiIndex.from_frame(rows[[by, axis]]).isin(lost)]
    if rows.empty:
        raise UserError(f"optimum: at every {axis} some trial has no finite {y}")
    few = rows.groupby(by)[axis].nunique()
    if (few < 4).any():
        raise UserError(f"optimum: {few.min()} values of {axis} at {by} = {few.idxmin():g} with a finite {y} in all "
                        "trials; it takes 4, better 8")
    every = tried.groupby(by)[axis].unique()
    windows = [_Window.of(value, group, axis, np.sort(every[value]), codes is not None)
               for value, group in rows.groupby(by)]
    degree = _degree(windows)
    return pd.DataFrame([{by: each.value, **each.locate(axis, degree, level)} for each in windows])


@dataclass(frozen=True)
class _Window:
    """The trials next to the best: ``u`` = ln axis - ln best and what is least, (n,); ``grid`` has the candidates among
    the values ``tried``."""

    value: float
    tried: Array
    grid: Array
    best: int
    u: Array
    goal: Array
    clusters: npt.NDArray[np.intp] | None

    @staticmethod
    def of(value: float, group: pd.DataFrame, axis: str, tried: Array, clustered: bool) -> _Window:
        """Around the least smoothed mean."""
        means = group.groupby(axis)["goal"].mean()
        grid, padded = means.index.to_numpy(float), np.pad(means.to_numpy(), 1, mode="edge")
        best = int(np.argmin(padded[:-2] + 2 * padded[1:-1] + padded[2:]))
        if best in (0, len(grid) - 1):  # an end has no neighbour beyond to be weighed down by
            best = int(np.argmin(means))
        near = group[group[axis].isin(grid[max(best - NEIGHBOURS, 0): best + NEIGHBOURS + 1])]
        return _Window(value, tried, grid, best, np.log(near[axis].to_numpy() / grid[best]), near["goal"].to_numpy(),
                       near["cluster"].to_numpy() if clustered else None)

    def allows(self, degree: int) -> bool:
        """Whether it has the points for a polynomial, and a degree of freedom left."""
        return len(np.unique(self.u)) > degree and len(self.u) > degree + 1

    def polynomial(self, degree: int) -> tuple[Polynomial, Array, float]:
        """Least squares: the polynomial, the covariance of its coefficients, the degrees of freedom of their chance.

        With clusters the sandwich, times G / (G - 1), which is exact where all clusters have the same values of u.
        """
        columns = np.vander(self.u, degree + 1, increasing=True)
        influence = np.linalg.pinv(columns)
        coefficients = influence @ self.goal
        residual = self.goal - columns @ coefficients
        if self.clusters is None:
            dof = len(residual) - degree - 1
            return Polynomial(coefficients), residual @ residual / dof * influence @ influence.T, dof
        parts = pd.DataFrame(residual[:, None] * influence.T).groupby(self.clusters).sum().to_numpy()
        groups = len(parts)
        return Polynomial(coefficients), parts.T @ parts * groups / max(groups - 1, 1), max(groups - 1, 1)

    def locate(self, axis: str, degree: int, level: float) -> dict[str, float]:
        """A row of ``optimum``."""
        found = {axis: np.nan, "low": 0.0, "high": np.inf, "se": np.inf, "dof": 1.0, "rows": len(self.u),
                 "at_edge": False}
        if self.best in (0, len(self.grid) - 1):
            return found | self._end(self.best, axis)
        curve, covariance, dof = self.polynomial(max(each for each in range(2, degree + 1) if self.allows(each)))
        fine = np.linspace(self.u.min(), self.u.max(), 2001)
        place = int(np.argmin(curve(fine)))
        if place in (0, len(fine) - 1):
            end = min(self.best + NEIGHBOURS, len(self.grid) - 1) if place else max(self.best - NEIGHBOURS, 0)
            return found | (self._end(end, axis) if end in (0, len(self.grid) - 1) else {})
        powers = np.arange(len(curve.coef))
        terms = powers * fine[:, None] ** np.maximum(powers - 1, 0)
        slope, error = terms @ curve.coef, np.sqrt(np.einsum("vi,ij,vj->v", terms, covariance, terms))
        sure = np.abs(slope) > stdtrit(dof, (1 + level) / 2) * error
        falls, rises = np.flatnonzero((sure & (slope < 0))[:place]), np.flatnonzero((sure & (slope > 0))[place:])
        here = self.grid[self.best]
        return found | {
            axis: here * np.exp(fine[place]), "dof": dof,
            "low": here * np.exp(fine[falls[-1]]) if len(falls) else 0.0,
            "high": here * np.exp(fine[place + rises[0]]) if len(rises) else np.inf,
            # At most that of a place anywhere in the window: it was looked for there alone.
            "se": min(error[place] / max(curve.deriv(2)(fine[place]), 1e-300), np.ptp(self.u) / np.sqrt(12))}


    def _end(self, end: int, axis: str) -> dict[str, float]:
        """Where the best is the first or last candidate: what was tried beyond bounds it, if anything was."""
        place = int(np.searchsorted(self.tried, self.grid[end]))
        if place in (0, len(self.tried) - 1):
            return {axis: self.grid[end], "at_edge": True}
        low, high = self.tried[place - 1], self.tried[place + 1]
        return {axis: self.grid[end], "low": low, "high": high, "se": np.log(high / low) / np.sqrt(12), "dof": np.inf}


def _degree(windows: Sequence[_Window]) -> int:
    """The same for all: where some had one and some another, their optima would be off by different amounts."""
    for degree in (2, 3):
        logs = []
        for window in windows:
            if window.allows(degree + 1):
                curve, covariance, dof = window.polynomial(degree + 1)
                t = abs(curve.coef[-1]) / np.sqrt(max(covariance[-1, -1], 1e-300))
                logs.append(np.log(max(2 * stdtr(dof, -t), 1e-300)))
        if not logs or chdtrc(2 * len(logs), -2 * sum(logs)) > HIGHER:
            return degree
    return 4


def _check_positive(rows: pd.DataFrame, axis: str, place: str) -> None:
    if rows[axis].min() <= 0:
        raise UserError(f"{place}: {axis} = {rows[axis].min():g} on an axis of logarithms; leave out rows with "
                        f"{axis} <= 0")


def largest_stable(data: pd.DataFrame, axis: str, stable: str, by: str, *, level: float = LEVEL) -> pd.DataFrame:
    """The largest value of ``axis`` below which trials are stable (``stable`` is 1 or True), for each value of ``by``.

    The mean over replicates of the logarithm of their largest stable value, each between two neighbours on the grid and
    taken at their midpoint (Spearman 1908, Karber 1931), after making the share of stable trials fall along the axis by
    isotonic regression. Two errors add up: the replicates' spread s, pooled over ``by``, and what the grid's step w (in
    logarithms) does to all replicates alike, w^2/12 exp(-(2 pi s/w)^2): spread is dither (Widrow 1961). One replicate
    shows no spread, and the interval is then that of the trial rather than of its kind. Columns and errors are those of
    ``optimum``, and ``bracket``, the width in logarithms of what the grid leaves open; ``at_edge``: some trials are
    unstable at the least value of the axis, or stable at the greatest.
    """
    rows, _ = numbers(data, (by, axis, stable), "largest_stable")
    if not rows[stable].isin((0, 1)).all():
        raise UserError(f"largest_stable: {stable} has {rows[stable][~rows[stable].isin((0, 1))].iloc[0]:g}; "
                        "give a column of 0 and 1")
    _check_positive(rows, axis, "largest_stable")
    found = []
    for value, group in rows.groupby(by):
        shares = group.groupby(axis)[stable].agg(["mean", "size"])
        grid, u = shares.index.to_numpy(float), np.log(shares.index.to_numpy(float))
        stays = isotonic_regression(shares["mean"], weights=shares["size"], increasing=False).x
        leaving, middle = -np.diff(stays), (u[1:] + u[:-1]) / 2
        edge = bool(stays[0] < 1 or stays[-1] > 0)
        mean = np.log(grid[0 if stays[0] < 1 else -1]) if edge else leaving @ middle
        found.append({by: value, axis: np.exp(mean), "replicates": shares["size"].mean(), "rows": len(group),
                      "squares": leaving @ (middle - mean) ** 2, "width": leaving @ np.diff(u), "at_edge": edge})
    table = pd.DataFrame(found)
    inside, number, width = ~table["at_edge"], table["replicates"], table["width"].clip(lower=1e-300)
    freedom = float((number[inside] - 1).sum())
    spread = float((table["squares"] * number)[inside].sum()) / freedom if freedom > 0 else 0.0
    dithered = np.exp(-((2 * np.pi / width) ** 2) * (spread - width**2 / 12).clip(lower=0))
    se = np.sqrt(spread / number + width**2 / 12 * dithered).where(inside, np.inf)
    dof = freedom if spread > 0 else np.inf
    reach = stdtrit(dof, (1 + level) / 2) * se
    return table[[by, axis]].assign(low=table[axis] * np.exp(-reach), high=table[axis] * np.exp(reach), se=se, dof=dof,
                                    rows=table["rows"], at_edge=table["at_edge"], bracket=width)


def fit_optimum(data: pd.DataFrame, law: str | Law, axis: str, y: str, by: str, *,
                mode: Literal["min", "max", "largest_stable"] = "min", cluster: str | None = None,
                level: float = LEVEL, seed: int = 0) -> LawFit:
    """A law of the ``optimum`` of ``axis`` over ``by``, or of ``largest_stable`` (``y`` then says what is stable).

    Optima at an edge of the grid, or not found, are left out; ``method`` says how many and why, and what the intervals
    rest on. ``data`` has the ``error`` of each. Intervals of largest stable values hold all laws that go through what
    the grid leaves open of each, from ``lower`` to ``upper`` in ``data`` (``brackets.py``). Raises UserError as
    ``optimum`` and ``fit_law`` do.
    """
    table = largest_stable(data, axis, y, by, level=level) if mode == "largest_stable" else optimum(
        data, axis, y, by, mode=mode, cluster=cluster, level=level)
    kept = table[~table["at_edge"] & table[axis].notna()]
    if len(kept) < 3:
        raise UserError(f"fit_optimum: a best {axis} is found at {len(kept)} of {len(table)} values of {by}, and lies "
                        f"at the edge of what was tried at {table['at_edge'].sum()}; it takes 3: widen its grid")
    fit = fit_law(kept, law, by, axis, level=level, seed=seed)
    problem = pose(kept, fit.law, (by,), axis)
    best = problem.coordinates(fit.parameters)
    known = chance(problem.jacobian(best[None])[0], fit.data["residual"].to_numpy(), None)
    # What the errors of the optima make of each parameter, with Satterthwaite's degrees of freedom.
    scale = 1.0 if fit.law.log else kept[axis].to_numpy()
    shares = (known.influence * scale * kept["se"].to_numpy()) ** 2
    own = np.sqrt(shares.sum(1))
    dof = own**4 / np.maximum((shares**2 / kept["dof"].to_numpy()).sum(1), 1e-200)
    more = np.isfinite(known.se) & (own > known.se)
    method = f"{fit.method}, of {len(kept)} {'largest stable values' if mode == 'largest_stable' else 'optima'}"
    if len(kept) < len(table):
        edge = int(table["at_edge"].sum())
        method += f"; left out: {edge} at an edge of the grid, {len(table) - len(kept) - edge} not found"
    fit = replace(fit, method=method, data=fit.data.assign(error=scale * kept["se"]))
    if more.any():
        sigma = own / np.maximum(np.linalg.norm(known.influence, axis=1), 1e-200)
        known = replace(known, se=np.where(more, own, known.se), sigma=np.where(more, sigma, known.sigma),
                        dof=np.where(more, dof, known.dof))
        squares = float((fit.data["residual"] ** 2).sum())
        near = problem.parameters(draws(problem, best, known, None, False, DRAWS, seed))
        fit = replace(fit.between(*problem.parameters(profile(problem, best, squares, known, level).T)), draws=near,
                      method=f"{method}; from their own errors, which are more than their scatter about the law")
    return through(fit, problem, kept["bracket"].to_numpy()) if mode == "largest_stable" else fit
