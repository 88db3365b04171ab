"""Calibration of the shape of boundaries: is what is no line and no parabola decided, and what is one left undecided?

Grids are those of calibration_boundaries.py, k = 6 where nothing else is said, or have uneven ticks. Undecided is what
a claim would be: no boundary, a crossover, a shape that is refuted, or an open slope. Wrong is a slope decided
otherwise than the truth at the middle of x: where boundaries meet, that of any of them; of an island, any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.boundaries.shape import shape_test
from analysis.boundaries.surface import fit_boundary
from benchmarks.calibration_boundaries import STEP, grid, rises

Array = npt.NDArray[np.float64]
Chance = Callable[[Array, Array, np.random.Generator], Array]  # at u and v of each point
REPEATS = 500
END = 4.5 * STEP  # of a grid of 10
UNEVEN = END * np.array([-1.0, -0.93, -0.72, -0.38, -0.27, 0.0, 0.09, 0.3, 0.55, 1.0])  # ticks


@dataclass(frozen=True)
class Case:
    """Seeds of each point, their chance, the least and the greatest slope that is true; ``uneven`` ticks, and how far a
    third axis of three values, which is given, ``moves`` it a value."""

    seeds: int
    chance: Chance
    slopes: tuple[float, float]
    uneven: bool = False
    moves: float = 0.0


def above(curve: Callable[[Array], Array], k: float = 6.0, shared: float = 0.0, by_accident: tuple[float, float] =
          (0.0, 0.0)) -> Chance:
    """1 above v = curve(u), and by accident: 1 below, 0 above; ``shared`` is the chance of a point, in logits."""
    low, high = by_accident

    def chance(u: Array, v: Array, rng: np.random.Generator) -> Array:
        return np.asarray(low + (1 - low - high) * rises(k * (v - curve(u)) + shared * rng.normal(size=len(u))))
    return chance


def across(curve: Callable[[Array], Array]) -> Chance:
    """1 right of u = curve(v)."""
    return both(lambda u, v: u - curve(v))


def both(*away: Callable[[Array, Array], Array]) -> Chance:
    """1 where all of these are above 0."""
    return lambda u, v, rng: np.prod([rises(6.0 * each(u, v)) for each in away], axis=0)


def either(*away: Callable[[Array, Array], Array]) -> Chance:
    """1 where any of these is above 0."""
    return lambda u, v, rng: 1.0 - np.prod([rises(-6.0 * each(u, v)) for each in away], axis=0)


def wall(at: float) -> Callable[[Array, Array], Array]:
    """To the right of it."""
    return lambda u, v: u - at


def over(slope: float, offset: float = 0.0) -> Callable[[Array, Array], Array]:
    """Above a line."""
    return lambda u, v: v - slope * u - offset


def under(slope: float, offset: float) -> Callable[[Array, Array], Array]:
    """Below a line."""
    return lambda u, v: slope * u + offset - v


HALF = (0.5, 0.5)
LINES = {
    "line, k 2": Case(1, above(lambda u: 0.5 * u, 2.0), HALF),
    "line": Case(1, above(lambda u: 0.5 * u), HALF),
    "line, k 20": Case(1, above(lambda u: 0.5 * u, 20.0), HALF),
    "line, steep": Case(1, above(lambda u: 3.0 * u, 3.0), (3.0, 3.0)),
    "line, uneven ticks": Case(1, above(lambda u: 0.5 * u), HALF, uneven=True),
    "line, a third axis given": Case(1, above(lambda u: 0.5 * u), HALF, moves=0.7),
    "line, 3 seeds": Case(3, above(lambda u: 0.5 * u), HALF),
    "line, points share": Case(3, above(lambda u: 0.5 * u, 2.0, 1.0), HALF),
    "line, 10% flipped": Case(1, above(lambda u: 0.5 * u, by_accident=(0.1, 0.1)), HALF),
    "line, 10% flipped, 3 seeds": Case(3, above(lambda u: 0.5 * u, by_accident=(0.1, 0.1)), HALF),
    "line, 10% of 0 flipped": Case(3, above(lambda u: 0.5 * u, by_accident=(0.1, 0.0)), HALF),
    "parabola, bend 0.1": Case(1, above(lambda u: 0.5 * u + 0.1 * u**2), HALF),
    "parabola, bend 0.2, 3 seeds": Case(3, above(lambda u: 0.5 * u + 0.2 * u**2 - 1.0), HALF),
}
ALONG = (np.inf, np.inf)  # the slope of a boundary along v
NEVER = (np.nan, np.nan)
ISLAND = both(lambda u, v: 2.2 - np.hypot(u - 1.0, v - 1.5))
OTHERS = {
    "S": Case(1, above(lambda u: 1.8 * (u / END) ** 3), (0.0, 0.0)),
    "S, 3 seeds": Case(3, above(lambda u: 1.8 * (u / END) ** 3), (0.0, 0.0)),
    "S, uneven ticks": Case(1, above(lambda u: 1.8 * (u / END) ** 3), (0.0, 0.0), uneven=True),
    "S, a third axis given": Case(1, above(lambda u: 1.8 * (u / END) ** 3), (0.0, 0.0), moves=0.7),
    "S, flat at its ends": Case(1, above(lambda u: u - 1.8 * (u / END) ** 3), (1.0, 1.0)),
    "S, turned by 90 degrees": Case(1, across(lambda v: 1.8 * (v / END) ** 3), ALONG),
    "saturates": Case(1, above(lambda u: 1.5 * np.tanh(1.2 * u)), (1.8, 1.8)),
    "saturates, turned": Case(1, across(lambda v: 1.5 * np.tanh(1.2 * v)), (1 / 1.8, 1 / 1.8)),
    "step": Case(1, above(lambda u: 1.2 * np.sign(u)), (0.0, 0.0)),
    "step, 3 seeds": Case(3, above(lambda u: 1.2 * np.sign(u)), (0.0, 0.0)),
    "step, falling": Case(1, above(lambda u: -1.2 * np.sign(u)), (0.0, 0.0)),
    "step, right": Case(1, above(lambda u: 1.2 * np.sign(u - 1.0)), (0.0, 0.0)),
    "step, turned": Case(1, across(lambda v: 1.2 * np.sign(v)), ALONG),
    "corner": Case(1, both(over(0.5), wall(-0.5)), HALF),
    "corner, 3 seeds": Case(3, both(over(0.5), wall(-0.5)), HALF),
    "corner, uneven ticks": Case(1, both(over(0.5), wall(-0.5)), HALF, uneven=True),
    "corner, a third axis given": Case(1, both(over(0.5), wall(-0.5)), HALF, moves=0.7),
    "corner, wall far left": Case(1, both(over(0.5), wall(-1.5)), HALF),
    "corner, wall right": Case(1, both(over(0.5), wall(0.8)), HALF),
    "T": Case(1, either(over(0.3), wall(1.0)), (0.3, 0.3)),
    "T, 3 seeds": Case(3, either(over(0.3), wall(1.0)), (0.3, 0.3)),
    "two lines meet": Case(1, above(lambda u: np.maximum(u, 0.0) - 1.0), (0.0, 1.0)),
    "tent": Case(1, above(lambda u: 1.0 - np.abs(u)), (-1.0, 1.0)),
    "tent, 3 seeds": Case(3, above(lambda u: 1.0 - np.abs(u)), (-1.0, 1.0)),
    "tent, turned": Case(1, across(lambda v: 1.0 - np.abs(v)), (-1.0, 1.0)),
    "stripe": Case(1, both(over(0.3, -1.0), under(0.3, 1.0)), (0.3, 0.3)),
    "stripe, not in the middle": Case(1, both(over(0.3, -1.0), under(0.3, 1.5)), (0.3, 0.3)),
    "stripe, wide": Case(1, both(over(0.3, -0.5), under(0.3, 2.2)), (0.3, 0.3)),
    "stripe, wide, 3 seeds": Case(3, both(over(0.3, -0.5), under(0.3, 2.2)), (0.3, 0.3)),
    "island": Case(1, both(lambda u, v: 1.5 - np.hypot(u - 1.0, v - 1.0)), NEVER),
    "island, at the edge": Case(1, ISLAND, NEVER),
    "island, at the edge, 3 seeds": Case(3, ISLAND, NEVER),
}


def sweep(rng: np.random.Generator, case: Case) -> pd.DataFrame:
    """A row a trial, the grid moved by a part of a step along v."""
    u, v = grid(10)
    if case.uneven:
        u, v = (np.interp(axis, np.unique(axis), UNEVEN) for axis in (u, v))
    third = np.zeros(len(u))
    if case.moves:
        u, v, third = np.tile(u, 3), np.tile(v, 3), np.repeat([-1.0, 0.0, 1.0], len(u))
    p = np.repeat(case.chance(u, v + rng.uniform(-0.5, 0.5) * STEP - case.moves * third, rng), case.seeds)
    rows = pd.DataFrame({"batch_size": 64 * np.exp(u), "lr": 0.1 * np.exp(v), "decay": 10.0**third})
    return rows.loc[rows.index.repeat(case.seeds)].assign(
        seed=np.tile(np.arange(case.seeds), len(u)), diverged=(rng.random(len(p)) < p) * 1.0)


def verdict(data: pd.DataFrame, case: Case, seed: int = 0) -> tuple[bool, bool, bool, float]:
    """Undecided, decided and wrong, the truth in the slope's interval, and half the width of that."""
    given = ["decay"] if case.moves else []
    fit = fit_boundary(data, "diverged", "batch_size", "lr", given=given, crossed="seed", seed=seed)
    slope = fit.estimates["slope"]
    undecided = fit.kind != "boundary" or bool(np.isinf(slope.low)) or shape_test(fit, seed).misleads
    true = bool(np.isinf(slope.low)) or (slope.low <= case.slopes[1] and case.slopes[0] <= slope.high)
    return undecided, not undecided and not true, true, (slope.high - slope.low) / 2


def main(repeats: int = REPEATS) -> None:
    """Print the tables."""
    for title, cases in (("lines and parabolas: asked to be decided", LINES), ("other shapes", OTHERS)):
        print(f"{title}, 10x10, {repeats} sweeps each\n"
              f"{'':<32}{'undecided':>10}{'wrong':>8}{'covered':>9}{'slope +-':>10}")
        for name, case in cases.items():
            rng = np.random.default_rng([3, *name.encode()])  # a row can be run alone
            found = np.array([verdict(sweep(rng, case), case, repeat) for repeat in range(repeats)])
            shares = found[:, :3].mean(axis=0)
            print(f"  {name:<30}{shares[0]:>10.1%}{shares[1]:>8.1%}{shares[2]:>9.1%}{np.median(found[:, 3]):>10.3f}",
                  flush=True)


if __name__ == "__main__":
    main()
