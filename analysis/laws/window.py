"""The trials next to the best on a grid, and where a polynomial through them is least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.polynomial import Polynomial
from scipy.special import chdtrc, stdtr, stdtrit

from analysis.laws.law import Array

NEIGHBOURS = 2  # grid points on either side of the best: with fewer there is no telling how far it is from a parabola
FEWEST = 4  # values of the axis
HIGHER = 0.05  # a higher power is taken where the next is this unlikely to be chance


@dataclass(frozen=True)
class Window:
    """The trials next to the best: ``u`` = ln axis - ln best and what is least, (n,); ``grid`` has the candidates among
    the values ``tried``."""

    tried: Array
    grid: Array
    best: int
    u: Array
    goal: Array
    clusters: npt.NDArray[np.intp] | None

    @staticmethod
    def of(group: pd.DataFrame, axis: str, tried: Array, clustered: bool) -> Window:
        """Around the least smoothed mean."""
        means = group.groupby(axis)["goal"].mean()
        grid, padded = means.index.to_numpy(float), np.pad(means.to_numpy(), 1, mode="edge")
        best = int(np.argmin(padded[:-2] + 2 * padded[1:-1] + padded[2:]))
        if best in (0, len(grid) - 1):  # an end has no neighbour beyond to be weighed down by
            best = int(np.argmin(means))
        near = group[group[axis].isin(grid[max(best - NEIGHBOURS, 0): best + NEIGHBOURS + 1])]
        return Window(tried, grid, best, np.log(near[axis].to_numpy() / grid[best]), near["goal"].to_numpy(),
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
        found = nowhere(axis, len(self.u))
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


def nowhere(axis: str, rows: int) -> dict[str, float]:
    """A row of ``optimum`` where none is found."""
    return {axis: np.nan, "low": 0.0, "high": np.inf, "se": np.inf, "dof": 1.0, "rows": rows, "at_edge": False}


def degree_of(windows: Sequence[Window]) -> int:
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
