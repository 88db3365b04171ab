"""Seeds crossed with settings: seed s has one start, one order and one draw of the data at every setting.

What seed s shifts everywhere is no chance of the settings: a difference between settings is free of it, a level is
not, however many settings there are. In two steps (a two-way layout with settings and seeds as random effects; Searle,
Casella & McCulloch 1992, chapters 2 and 4): the shifts of the S seeds, which sum to 0, are fitted beside the law, so
that no cell that is missing tilts it; then each coordinate carries the variance that other S seeds would give it, with
S - 1 degrees of freedom (Satterthwaite 1946). A law's level carries all of it and its exponent, where no cell is
missing, none; but an exponent that differs from seed to seed by more than chance (an F test) carries that too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc

from analysis.laws.intervals import Chance
from analysis.laws.law import Array, without

Codes = npt.NDArray[np.intp]
DIFFER = 0.2  # seeds may differ in a coordinate where chance does this rarely: missed differences cost coverage
MOST_CELLS = 3000  # of settings and seeds, up to which it is asked whether seeds differ in more than a shift


@dataclass(frozen=True)
class Seeds:
    """``codes`` (n,) of the seeds of rows, of ``settings`` (n,), and an orthonormal ``basis`` (n, S - 1) of the shifts
    of seeds' rows that sum to 0."""

    codes: Codes
    settings: Codes
    basis: Array

    @staticmethod
    def of(codes: Codes, settings: Codes) -> Seeds | None:
        """None where there is one seed, or where seeds share no settings by which they could be told from these."""
        count = int(codes.max()) + 1
        if count < 2 or not _connected(codes, settings):
            return None
        shifts = np.eye(count)[codes]
        return Seeds(codes, settings, np.linalg.qr(shifts[:, :-1] - shifts[:, -1:])[0])

    @property
    def count(self) -> int:
        """S."""
        return int(self.basis.shape[1]) + 1

    def free(self, values: Array) -> Array:
        """``values`` (..., n) without what seeds shift in them."""
        return without(values, self.basis)

    def shifts(self, residual: Array) -> Array:
        """(S,): how far each seed's rows lie from the law, where ``residual`` (n,) has their shifts in it."""
        shifted = self.basis @ (self.basis.T @ residual)
        return np.array([shifted[self.codes == code][0] for code in range(self.count)])


@dataclass(frozen=True)
class Carried:
    """What other seeds would change: ``known`` with it; the standard deviation ``sd`` of seeds' shifts; how each seed
    moves the rows, ``moves`` (S, n); the coordinates ``differing`` (P,) in which seeds differ beside a shift."""

    known: Chance
    sd: float
    moves: Array
    differing: npt.NDArray[np.bool_]

    def noise(self, rng: np.random.Generator, number: int) -> Array:
        """What other seeds would have added to the rows, (number, n)."""
        count = len(self.moves)
        spread = np.sqrt((count - 1) / rng.chisquare(count - 1, (number, 1)))
        return np.asarray(spread * rng.normal(size=(number, count)) @ self.moves)


def carry(known: Chance, jacobian: Array, residual: Array, seeds: Seeds) -> Carried:
    """``known`` is the chance of the law fitted beside the shifts of seeds, with its ``jacobian`` (n, P) and the
    ``residual`` (n,) that has the shifts in it."""
    count, size = seeds.count, np.maximum(np.linalg.norm(known.influence, axis=1), 1e-100)
    cells = _Cells.of(seeds, seeds.free(residual), jacobian)
    shifts, few = seeds.shifts(residual), count / (count - 1)
    sd = float(np.sqrt((shifts**2).sum() / (count - 1)))
    by_chance = cells.noise * cells.share
    shift = known.influence.sum(1) / count  # of a coordinate, by a seed that shifts its rows by 1
    variance = shift**2 * count * max(sd**2 - by_chance, 0.0)
    uncertain = shift**2 * count * sd**2
    differing, steps = np.zeros(len(shift), bool), np.zeros((count, len(shift)))
    for place, (own, chance, p) in enumerate(cells.between(known.influence)):
        if p < DIFFER:
            differing[place], steps[:, place] = True, own * np.sqrt(few) * count
            uncertain[place] = float(((own + shift[place] * shifts) ** 2).sum()) * few
            variance[place] = max(uncertain[place] - chance * few - shift[place] ** 2 * count * by_chance, 0.0)
    own = known.se**2
    with np.errstate(invalid="ignore"):  # a coordinate that is not identified has no end
        total = own + variance
        dof = total**2 / (own**2 / known.dof + uncertain**2 / (count - 1))
    moved = uncertain > 1e-6 * own
    se = np.sqrt(total)
    carried = replace(known, se=np.where(moved, se, known.se), sigma=np.where(moved, se / size, known.sigma),
                      dof=np.where(moved & np.isfinite(dof), dof, known.dof))
    left = np.sqrt(max(1 - by_chance / sd**2, 0.0)) if sd > 0 else 0.0
    everywhere = np.outer(shifts * left * np.sqrt(few) / count, np.ones(len(residual)))
    tilts = np.eye(count)[seeds.codes].T * (jacobian @ steps.T).T
    return Carried(carried, sd, everywhere + tilts, differing)


@dataclass(frozen=True)
class _Cells:
    """Means over the rows of a setting and seed: what is left of them without settings and seeds, its mean square
    ``noise``, and the ``share`` of that in the variance of a seed's shift. ``left`` is empty where nothing is."""

    seeds: Codes  # of cells
    rows: Codes  # the cell of each row
    left: Array
    noise: float
    dof: int
    share: float
    absorbed: Array  # an orthonormal basis of settings and seeds

    @staticmethod
    def of(seeds: Seeds, residual: Array, jacobian: Array) -> _Cells:
        """Of rows themselves and the law where no setting has two seeds' rows to spare."""
        pairs, rows = np.unique(np.stack([seeds.settings, seeds.codes]), axis=1, return_inverse=True)
        rows = rows.reshape(-1)
        settings, codes = pairs
        number = np.bincount(rows)
        dof = len(number) - len(np.unique(settings)) - (seeds.count - 1)
        if dof < 1 or len(number) > MOST_CELLS:
            basis = np.linalg.qr(np.column_stack([seeds.basis, seeds.free(jacobian.T).T]))[0]
            dof = max(len(residual) - basis.shape[1], 1)
            share = float(np.mean(1 / np.bincount(seeds.codes)))
            return _Cells(seeds.codes, np.arange(len(residual)), np.empty(0), float(residual @ residual) / dof, dof,
                          share, basis)
        design = np.column_stack([np.eye(settings.max() + 1)[settings], np.eye(seeds.count)[codes]])
        u, singular, _ = np.linalg.svd(design, full_matrices=False)
        basis = u[:, singular > 1e-9 * singular[0]]
        means = np.bincount(rows, residual) / number
        left = without(means, basis)
        return _Cells(codes, rows, left, float(left @ left) / dof, dof, float(np.mean(1 / np.bincount(codes))), basis)

    def between(self, influence: Array) -> Iterator[tuple[Array, float, float]]:
        """For each coordinate: what each seed by itself adds to it, (S,); the sum of squares that chance adds; the
        p-value of there being no more."""
        if not len(self.left):
            return
        count = int(self.seeds.max()) + 1
        for row in influence:
            weights = np.eye(count)[self.seeds].T * np.bincount(self.rows, row)
            own = weights @ self.left
            free = without(weights, self.absorbed)
            chance = self.noise * float((free**2).sum())
            p = 1.0
            if chance > 1e-12 * max(float((weights**2).sum()) * self.noise, 1e-300):
                p = float(fdtrc(count - 1, self.dof, float((own**2).sum()) / chance))
            yield own, chance, p


def _connected(codes: Codes, settings: Codes) -> bool:
    """Whether the seeds can be compared with each other through settings that they share."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = int(codes.max()) + 1
    size = count + int(settings.max()) + 1
    edges = coo_array((np.ones(len(codes)), (codes, count + settings)), shape=(size, size))
    return bool(connected_components(edges, directed=False)[0] == 1)
