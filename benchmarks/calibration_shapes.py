"""Calibration of the shape of boundaries: is what is no line and no parabola decided, and what is one left undecided?

Grids are those of calibration_boundaries.py, k = 6 where nothing else is said. Undecided is what a claim would be: no
boundary, a crossover, a shape that is refuted, or an open slope. Wrong is a slope decided otherwise than the truth at
the middle of x: where boundaries meet, that of any of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.boundaries.shape import shape_test
from analysis.boundaries.surface import fit_boundary
from benchmarks.calibration_boundaries import STEP, grid

Array = npt.NDArray[np.float64]
Chance = Callable[[Array, Array, np.random.Generator], Array]  # at u and v of each point
REPEATS = 500
END = 4.5 * STEP  # of a grid of 10


def rises(logits: Array) -> Array:
    """The logistic curve."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0))))


def above(curve: Callable[[Array], Array], k: float = 6.0, shared: float = 0.0, by_accident: tuple[float, float] =
          (0.0, 0.0)) -> Chance:
    """1 above v = curve(u), and by accident: 1 below, 0 above; ``shared`` is the chance of a point, in logits."""
    low, high = by_accident

    def chance(u: Array, v: Array, rng: np.random.Generator) -> Array:
        return np.asarray(low + (1 - low - high) * rises(k * (v - curve(u)) + shared * rng.normal(size=len(u))))
    return chance


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


# Name: seeds, chance, the slopes that are true.
LINES: dict[str, tuple[int, Chance, tuple[float, float]]] = {
    "line, k 2": (1, above(lambda u: 0.5 * u, 2.0), (0.5, 0.5)),
    "line": (1, above(lambda u: 0.5 * u), (0.5, 0.5)),
    "line, k 20": (1, above(lambda u: 0.5 * u, 20.0), (0.5, 0.5)),
    "line, steep": (1, above(lambda u: 3.0 * u, 3.0), (3.0, 3.0)),
    "line, 3 seeds": (3, above(lambda u: 0.5 * u), (0.5, 0.5)),
    "line, points share": (3, above(lambda u: 0.5 * u, 2.0, 1.0), (0.5, 0.5)),
    "line, 10% flipped": (1, above(lambda u: 0.5 * u, by_accident=(0.1, 0.1)), (0.5, 0.5)),
    "line, 10% flipped, 3 seeds": (3, above(lambda u: 0.5 * u, by_accident=(0.1, 0.1)), (0.5, 0.5)),
    "line, 10% of 0 flipped": (3, above(lambda u: 0.5 * u, by_accident=(0.1, 0.0)), (0.5, 0.5)),
    "parabola, bend 0.1": (1, above(lambda u: 0.5 * u + 0.1 * u**2), (0.5, 0.5)),
    "parabola, bend 0.2, 3 seeds": (3, above(lambda u: 0.5 * u + 0.2 * u**2 - 1.0), (0.5, 0.5)),
}
OTHERS: dict[str, tuple[int, Chance, tuple[float, float]]] = {
    "S": (1, above(lambda u: 1.8 * (u / END) ** 3), (0.0, 0.0)),
    "S, 3 seeds": (3, above(lambda u: 1.8 * (u / END) ** 3), (0.0, 0.0)),
    "S, turned": (1, above(lambda u: u - 1.8 * (u / END) ** 3), (1.0, 1.0)),
    "saturates": (1, above(lambda u: 1.5 * np.tanh(1.2 * u)), (1.8, 1.8)),
    "step": (1, above(lambda u: 1.2 * np.sign(u)), (0.0, 0.0)),
    "step, 3 seeds": (3, above(lambda u: 1.2 * np.sign(u)), (0.0, 0.0)),
    "corner": (1, both(over(0.5), wall(-0.5)), (0.5, 0.5)),
    "corner, 3 seeds": (3, both(over(0.5), wall(-0.5)), (0.5, 0.5)),
    "corner, wall far left": (1, both(over(0.5), wall(-1.5)), (0.5, 0.5)),
    "corner, wall right": (1, both(over(0.5), wall(0.8)), (0.5, 0.5)),
    "T": (1, either(over(0.3), wall(1.0)), (0.3, 0.3)),
    "two lines meet": (1, above(lambda u: np.maximum(u, 0.0) - 1.0), (0.0, 1.0)),
    "tent, 3 seeds": (3, above(lambda u: 1.0 - np.abs(u)), (-1.0, 1.0)),
    "stripe": (1, both(over(0.3, -1.0), under(0.3, 1.0)), (0.3, 0.3)),
    "stripe, not in the middle": (1, both(over(0.3, -1.0), under(0.3, 1.5)), (0.3, 0.3)),
    "stripe, wide": (3, both(over(0.3, -0.5), under(0.3, 2.2)), (0.3, 0.3)),
    "island": (3, both(lambda u, v: 1.5 - np.hypot(u - 1.0, v - 1.0)), (np.nan, np.nan)),
}


def sweep(rng: np.random.Generator, seeds: int, chance: Chance) -> pd.DataFrame:
    """A row a trial, the grid moved by a part of a step along v."""
    u, v = grid(10)
    p = np.repeat(chance(u, v + rng.uniform(-0.5, 0.5) * STEP, rng), seeds)
    return pd.DataFrame({"batch_size": 64 * np.repeat(np.exp(u), seeds), "lr": 0.1 * np.repeat(np.exp(v), seeds),
                         "seed": np.tile(np.arange(seeds), len(u)), "diverged": (rng.random(len(p)) < p) * 1.0})


def verdict(data: pd.DataFrame, slopes: tuple[float, float], seed: int = 0) -> tuple[bool, bool, float]:
    """Undecided, decided and wrong, and half the width of the slope's interval."""
    fit = fit_boundary(data, "diverged", "batch_size", "lr", crossed="seed", seed=seed)
    slope = fit.estimates["slope"]
    undecided = fit.kind != "boundary" or bool(np.isinf(slope.low)) or shape_test(fit, seed).misleads
    true = slope.low <= slopes[1] and slopes[0] <= slope.high
    return undecided, not undecided and not true, (slope.high - slope.low) / 2


def main(repeats: int = REPEATS) -> None:
    """Print the tables."""
    rng = np.random.default_rng(3)
    for title, cases in (("lines and parabolas: asked to be decided", LINES), ("other shapes", OTHERS)):
        print(f"{title}, 10x10, {repeats} sweeps each\n{'':<30}{'undecided':>10}{'wrong':>8}{'slope +-':>10}")
        for name, (seeds, chance, slopes) in cases.items():
            found = np.array([verdict(sweep(rng, seeds, chance), slopes, repeat) for repeat in range(repeats)])
            print(f"  {name:<28}{found[:, 0].mean():>10.1%}{found[:, 1].mean():>8.1%}{np.median(found[:, 2]):>10.3f}",
                  flush=True)


if __name__ == "__main__":
    main()
