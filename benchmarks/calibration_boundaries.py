"""Calibration of boundaries: do intervals hold the planted truth 95 times in 100, at any sharpness, and does a boundary
appear in at most 5 of 100 sweeps that have none?

A planted sweep is a grid, each axis a factor of 2 a step, with logit p = k (v - slope u - offset) + chance that all
seeds of a point share (standard deviation 1); the offset is drawn for each sweep, within a step. Where k times the step
(0.69) is far above 4 the transition is narrower than the grid, and what is known is between which points the boundary
runs: intervals that hold all such lines cover more than they are asked. ``line`` is the coverage of the band at both
ends and in the middle, ``open`` how often the width may be 0, ``bent`` how often a straight boundary passes for curved.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.boundaries.finite_size import fit_finite_size
from analysis.boundaries.surface import fit_boundary

Array = npt.NDArray[np.float64]
REPEATS = 500
FEWER = 60  # of finite sizes, which take longer
STEP = np.log(2.0)
SPREAD = 1.0  # of the chance that seeds of a point share, in logits


def grid(size: int) -> tuple[Array, Array]:
    """u and v of a square grid around 0."""
    ticks = (np.arange(size) - (size - 1) / 2) * STEP
    u, v = np.meshgrid(ticks, ticks, indexing="ij")
    return u.ravel(), v.ravel()


def rises(logits: Array) -> Array:
    """The logistic curve, of infinite logits as well."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0))))


def outcomes(rng: np.random.Generator, logits: Array, seeds: int) -> Array:
    """(points, seeds) of 0 and 1."""
    shared = logits[:, None] + SPREAD * rng.normal(size=(len(logits), 1))
    return (rng.random((len(logits), seeds)) < rises(shared)).astype(float)


def sweep(size: int, found: Array) -> pd.DataFrame:
    """A row a trial: batch size, lr and outcome."""
    u, v = grid(size)
    seeds = found.shape[1]
    return pd.DataFrame({"batch_size": np.repeat(64 * np.exp(u), seeds), "lr": np.repeat(0.1 * np.exp(v), seeds),
                         "diverged": found.ravel()})


def planted(rng: np.random.Generator, k: float, size: int, seeds: int, slope: float) -> tuple[pd.DataFrame, float]:
    """A sweep, and the offset of its boundary."""
    u, v = grid(size)
    offset = rng.uniform(-0.5, 0.5) * STEP
    return sweep(size, outcomes(rng, k * (v - slope * u - offset), seeds)), offset


def width(k: float) -> float:
    """From probability 0.1 to 0.9 over all sweeps: what points share widens it."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    t = np.linspace(0.0, 10.0 / k, 4001)
    p = rises(k * t[:, None] + SPREAD * nodes) @ (weights / weights.sum())
    return 2.0 * float(np.interp(0.9, p, t))


def slopes(rng: np.random.Generator) -> None:
    """Print coverage over planted boundaries."""
    print(f"95% intervals, {REPEATS} sweeps each: coverage, the median width of the slope's and median bias")
    print(f"{'k':>4}{'grid':>7}{'seeds':>6}{'slope':>7}{'covered':>9}{'place':>8}{'width':>8}{'line':>8}{'open':>8}"
          f"{'bent':>8}{'slope +-':>10}{'bias':>8}{'kind':>10}")
    for k, size, seeds, slope in ((2.0, 8, 1, 1.0), (2.0, 12, 3, 0.5), (6.0, 12, 1, 0.5), (6.0, 8, 3, 1.0),
                                  (20.0, 8, 1, 1.0), (20.0, 12, 3, 0.5)):
        held, sizes = [], []
        for repeat in range(REPEATS):
            data, offset = planted(rng, k, size, seeds, slope)
            fit = fit_boundary(data, "diverged", "batch_size", "lr", seed=repeat)
            found = fit.estimates
            x = np.array([data["batch_size"].min(), 64.0, data["batch_size"].max()])
            low, high = fit.band(x)
            truth = 0.1 * np.exp(slope * np.log(x / 64) + offset)
            held.append([found["slope"].covers(slope), found["location"].covers(truth[1]),
                         found["width"].covers(width(k)), ((low <= truth) & (truth <= high)).mean(),
                         found["width"].low == 0.0, fit.p_straight < 0.05, fit.kind == "boundary"])
            sizes.append([found["slope"].high - found["slope"].low, found["slope"].value - slope])
        shares = np.mean(held, axis=0)
        spread, bias = np.median(sizes, axis=0)
        print(f"{k:>4g}{f'{size}x{size}':>7}{seeds:>6}{slope:>7}{shares[0]:>9.1%}"
              + "".join(f"{share:>8.1%}" for share in shares[1:6])
              + f"{spread / 2:>10.3f}{bias:>+8.3f}{shares[6]:>10.1%}", flush=True)


def nothing(rng: np.random.Generator) -> None:
    """Print how often something is found where the outcome is a coin's."""
    print(f"\nno boundary, {REPEATS} sweeps each, asked at most 5%: found anything, found a boundary")
    for p, size, seeds in ((0.02, 12, 1), (0.2, 8, 1), (0.5, 8, 1), (0.5, 12, 3)):
        kinds = []
        for repeat in range(REPEATS):
            coins = (rng.random((size * size, seeds)) < p if seeds == 1 else
                     outcomes(rng, np.full(size * size, np.log(p / (1 - p))), seeds))
            kinds.append(fit_boundary(sweep(size, coins), "diverged", "batch_size", "lr", seed=repeat).kind)
        found = [np.mean([kind != "none" for kind in kinds]), np.mean([kind == "boundary" for kind in kinds])]
        print(f"  p {p:<5} {size:>2}x{size:<3} {seeds} seeds: {found[0]:>7.1%}{found[1]:>7.1%}", flush=True)


def sizes(rng: np.random.Generator, repeats: int = FEWER) -> None:
    """Print coverage of finite-size scaling."""
    print(f"\nfinite-size scaling, 5 sizes, 12 values, 3 seeds, {repeats} sweeps each: coverage of 1/nu and of "
          "the critical value, and called a transition")
    size, y = (each.ravel() for each in np.meshgrid([16.0, 32.0, 64.0, 128.0, 256.0], np.linspace(0.1, 0.9, 12)))
    for exponent, common, steepness in ((0.0, 0.0, 10.0), (0.5, 1.0, 10.0)):
        held = []
        for _ in range(repeats):
            found = outcomes(rng, common + steepness * (y - 0.47) * (size / 64) ** exponent, 3)
            data = pd.DataFrame({"fraction": np.repeat(y, 3), "width": np.repeat(size, 3), "grokked": found.ravel()})
            fit = fit_finite_size(data, "grokked", "fraction", "width")
            held.append([fit.estimates["exponent"].covers(exponent), fit.estimates["critical"].covers(0.47),
                         fit.kind == "transition"])
        shares = "".join(f"{share:>8.1%}" for share in np.mean(held, axis=0))
        crossing = 1.0 / (1.0 + np.exp(-common))
        print(f"  1/nu {exponent}, curves cross at {crossing:.2f}: {shares}", flush=True)


def main() -> None:
    """Print the tables."""
    rng = np.random.default_rng(1)
    slopes(rng)
    nothing(rng)
    sizes(rng)


if __name__ == "__main__":
    main()
