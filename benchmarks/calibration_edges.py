"""Calibration of boundaries that seeds or further axes move, that bend, or that are none though rows of a grid share
chance.

Grids are those of calibration_boundaries.py, with logit p = k (v - slope u - offset - what moves it); k infinite is an
outcome that follows from these. "sd" is how far each seed moves it, in ln y, at all points alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.boundaries.pooling import pooled_axes
from analysis.boundaries.surface import fit_boundary
from benchmarks.calibration_boundaries import STEP, grid, rises

Array = npt.NDArray[np.float64]
REPEATS = 500
SLOPE = 0.7


def drawn(rng: np.random.Generator, logits: Array) -> Array:
    """Outcomes, 0 or 1, of the same shape; of the sign of logits that are infinite."""
    return (rng.random(logits.shape) < rises(logits)).astype(float)


def seeds(rng: np.random.Generator, repeats: int) -> None:
    """Print coverage of the location and the slope where seeds move the boundary."""
    print(f"seeds move the boundary, 10x10, {repeats} sweeps each: coverage of location and slope, median half widths, "
          "passes for bent")
    for count, sd, k in ((2, 0.5, 6.0), (3, 0.5, 6.0), (5, 1.0, 6.0), (2, 1.0, np.inf), (3, 0.5, np.inf),
                         (5, 0.5, np.inf), (3, 0.0, 6.0)):
        held, sizes = [], []
        for repeat in range(repeats):
            u, v = (np.repeat(each, count) for each in grid(10))
            seed = np.tile(np.arange(count), 100)
            offset = rng.uniform(-0.5, 0.5) * STEP
            away = v - SLOPE * u - offset - sd * rng.normal(size=count)[seed]
            logits = k * away if np.isfinite(k) else np.inf * np.sign(away)
            data = pd.DataFrame({"batch_size": 64 * np.exp(u), "lr": 0.1 * np.exp(v), "seed": seed,
                                 "diverged": drawn(rng, logits)})
            fit = fit_boundary(data, "diverged", "batch_size", "lr", crossed="seed", seed=repeat)
            location, slope = fit.estimates["location"], fit.estimates["slope"]
            held.append([location.covers(0.1 * np.exp(offset)), slope.covers(SLOPE), fit.p_straight < 0.05])
            sizes.append([np.log(location.high / location.low) / 2, (slope.high - slope.low) / 2])
        shares, spread = np.mean(held, axis=0), np.median(sizes, axis=0)
        print(f"  {count} seeds, sd {sd:<3}, k {k:<4g}{shares[0]:>8.1%}{shares[1]:>8.1%}{spread[0]:>8.3f}"
              f"{spread[1]:>8.3f}{shares[2]:>8.1%}", flush=True)


def axes(rng: np.random.Generator, repeats: int) -> None:
    """Print coverage where a third axis moves the boundary, given and pooled."""
    print(f"\na third axis of 4 values moves it (sd in ln y), 10x10, {repeats} sweeps each: coverage of location and "
          "slope where it is given, and how often it is found to matter where it is pooled")
    for sd in (0.0, 0.3, 1.0):
        held = []
        for repeat in range(repeats):
            u, v = (np.repeat(each, 4) for each in grid(10))
            third = np.tile(np.arange(4), 100)
            offset = rng.uniform(-0.5, 0.5) * STEP
            logits = 6.0 * (v - SLOPE * u - offset - sd * (third - 1.5) / np.std(np.arange(4)))
            data = pd.DataFrame({"batch_size": 64 * np.exp(u), "lr": 0.1 * np.exp(v), "decay": 10.0 ** -third,
                                 "diverged": drawn(rng, logits)})
            fit = fit_boundary(data, "diverged", "batch_size", "lr", given=["decay"], seed=repeat)
            pooled = fit_boundary(data, "diverged", "batch_size", "lr", seed=repeat)
            held.append([fit.estimates["location"].covers(0.1 * np.exp(offset)), fit.estimates["slope"].covers(SLOPE),
                         pooled_axes(data, pooled, ["decay"])["decay"] < 0.05])
        print(f"  sd {sd:<4}" + "".join(f"{share:>8.1%}" for share in np.mean(held, axis=0)), flush=True)


def rows(rng: np.random.Generator, repeats: int) -> None:
    """Print how often a dependence is found where the values of an axis only share chance (sd 1 logit)."""
    print(f"\nno dependence, {repeats} sweeps each, asked at most 5%: found anything")
    for name, across, up, along_x, along_y in (("each x shares chance", 10, 10, 1.0, 0.0),
                                               ("each x shares chance", 6, 12, 1.0, 0.0),
                                               ("each x and each y do", 10, 10, 1.0, 1.0)):
        found = 0
        u, v = (each.ravel() for each in np.meshgrid(np.arange(across), np.arange(up), indexing="ij"))
        for _ in range(repeats):
            logits = along_x * rng.normal(size=across)[u] + along_y * rng.normal(size=up)[v]
            data = pd.DataFrame({"x": u, "y": v, "diverged": drawn(rng, logits)})
            found += fit_boundary(data, "diverged", "x", "y").kind != "none"
        print(f"  {name}, {across}x{up}: {found / repeats:>7.1%}", flush=True)


def main(repeats: int = REPEATS) -> None:
    """Print the tables."""
    rng = np.random.default_rng(2)
    seeds(rng, repeats)
    axes(rng, repeats)
    rows(rng, repeats)


if __name__ == "__main__":
    main()
