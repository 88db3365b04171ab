"""Whether a law fits: a lack-of-fit test on the means of settings, along the inputs.

Replicates alone cannot tell: settings also scatter about a law by chance of their own, which intervals carry by their
clusters, and then means are farther from a law that is right than replicates are from each other. What that scatter
does not have is a shape; a law that is wrong departs from the means smoothly. So the means are tested for a bend along
the inputs against their own scatter about it, which is right with such scatter and without.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import fdtrc

from analysis.estimates import UNLIKELY
from analysis.laws.brackets import passes
from analysis.laws.crossed import Seeds
from analysis.laws.intervals import Problem
from analysis.laws.law import Array, LawFit, without

MOST = 3  # shapes beyond the law that are tried
ROUNDING = 1e-9  # relative to the numbers: a misfit of less is none


@dataclass(frozen=True)
class Adequacy:
    """``p`` of "the law fits", NaN where there are too few values to say; ``because`` says it in words."""

    p: float
    because: str

    @property
    def misfit(self) -> bool:
        """Whether the law does not fit."""
        return self.p < UNLIKELY

    @property
    def doubts(self) -> list[str]:
        """Why no number of the law decides anything, if there is a reason."""
        return [self.because] if self.misfit else []

    @property
    def notes(self) -> list[str]:
        """What else there is to say."""
        return [] if self.misfit else [self.because]


def lack_of_fit(fit: LawFit, crossed: pd.Series | None = None) -> Adequacy:
    """The F test of a law against one that may also bend, on the means at each value of the inputs: Draper & Smith
    1998, chapter 6, with the scatter of the means in the place of pure error.

    The bend is a polynomial in the inputs (in logarithms where they are above 0), without what the law can follow: 1 to
    3 terms, of the lowest degrees, by how many means there are. ``crossed`` has the seed of each row by the index of
    ``fit.data``: what seeds do to all settings alike is taken out of the means, which matters where some lack a seed.
    Optima scatter by their own ``error`` at least, and a law fits that goes through what a grid leaves open.
    """
    names = list(fit.x)
    cells, codes = np.unique(fit.data[names].to_numpy(), axis=0, return_inverse=True)
    y, fitted = (np.log(fit.data[name]) if fit.law.log else fit.data[name] for name in (fit.y, "fitted"))
    seeds = None if crossed is None else pd.factorize(crossed[fit.data.index])[0]
    means = setting_means((y - fitted).to_numpy(), codes.ravel(), seeds)
    problem = Problem(fit.law, cells, means)
    start = problem.coordinates(fit.parameters)
    slopes = _orthonormal(problem.jacobian(start[None])[0])
    free = len(cells) - slopes.shape[1]
    over = " and ".join(names)
    if free < 2:
        return Adequacy(np.nan, f"{len(cells)} values of {over} are too few to test whether {fit.law.name} fits")
    bend = _bend(cells, slopes, int(np.clip(free // 3, 1, MOST)))
    residual = without(means, slopes)
    scale = float(np.abs(y).max()) + 1.0
    if np.abs(residual).max() < ROUNDING * scale:
        return Adequacy(1.0, f"{fit.law.name} fits: to rounding")
    if "lower" in fit.data and passes(fit, crossed):
        return Adequacy(1.0, f"{fit.law.name} fits: it can go through all that the grid leaves open")
    explained = float(((bend.T @ residual) ** 2).sum())
    k, dof, number = bend.shape[1], free - bend.shape[1], np.bincount(codes.ravel())
    left = max(float(residual @ residual) - explained, (1e-3 * ROUNDING * scale) ** 2)
    if "error" in fit.data:
        left = max(left, dof * float((np.bincount(codes.ravel(), fit.data["error"] ** 2) / number**2).mean()))
    p = float(fdtrc(k, dof, explained / k / (left / dof)))
    how = f"p = {p:.2g}, F test of a bend of {len(cells)} means along {over} against their scatter"
    return Adequacy(p, f"{fit.law.name} {'does not fit' if p < UNLIKELY else 'fits'}: {how}")


def setting_means(values: Array, settings: npt.NDArray[np.intp], crossed: npt.NDArray[np.intp] | None = None) -> Array:
    """The mean of each setting (codes), without what ``crossed`` seeds (codes) shift."""
    values = values if crossed is None else values - shifts(values, settings, crossed)
    return np.asarray(np.bincount(settings, values) / np.bincount(settings))


def shifts(values: Array, settings: npt.NDArray[np.intp], crossed: npt.NDArray[np.intp]) -> Array:
    """What the seed (codes) of each row does to all settings (codes) alike, by least squares of both, about the mean
    seed, (n,). Nothing where every setting has the same seeds, for then means are of the same, nor where no setting
    shares any."""
    seeds = None if crossed.min() < 0 else Seeds.of(crossed, settings)
    both = pd.crosstab(settings, crossed).to_numpy()
    if seeds is None or (both == both[:, :1]).all():
        return np.zeros(len(values))
    *within, rest = (each - setting_means(each, settings)[settings] for each in (*seeds.basis.T, values))
    return np.asarray(seeds.basis @ np.linalg.lstsq(np.column_stack(within), rest, rcond=1e-9)[0])


def _orthonormal(columns: Array) -> Array:
    """A basis of what the columns span."""
    u, singular, _ = np.linalg.svd(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-100), full_matrices=False)
    return np.asarray(u[:, singular > 1e-7 * singular[0]])


def _bend(cells: Array, slopes: Array, most: int) -> Array:
    """Orthonormal shapes along the inputs that are orthogonal to ``slopes``: of powers and products of inputs, the
    first ``most`` that are new."""
    inputs = np.where((cells > 0).all(0), np.log(np.where(cells > 0, cells, 1.0)), cells)
    inputs = (inputs - inputs.mean(0)) / np.maximum(np.ptp(inputs, axis=0), 1e-100)
    basis, found = slopes, 0
    for degree in range(len(cells)):
        for factors in combinations_with_replacement(range(cells.shape[1]), degree):
            shape = inputs[:, list(factors)].prod(1)
            new = shape - basis @ (basis.T @ shape)
            new = new - basis @ (basis.T @ new)
            if np.linalg.norm(new) > 1e-5 * np.linalg.norm(shape):
                basis = np.column_stack([basis, new / np.linalg.norm(new)])
                found += 1
            if found == most:
                return np.asarray(basis[:, slopes.shape[1]:])
    return np.asarray(basis[:, slopes.shape[1]:])
