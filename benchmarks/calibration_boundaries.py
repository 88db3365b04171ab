"""Calibration of boundaries: do intervals hold the planted truth 95 times in 100, at any sharpness, and does a boundary
appear in at most 5 of 100 sweeps that have none?

A planted sweep is a grid, each axis a factor of 2 a step, with logit p = k (v - slope u - offset) + chance that all
seeds of a point share (standard deviation 1): the offset is drawn for each sweep, within a step. Where k times the step
(0.69) is far above 4 the transition is narrower than the grid, and what is known is between which points the boundary
runs: intervals that hold all such lines cover more than they are asked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
REPEATS = 500
STEP = np.log(2.0)
SPREAD = 1.0  # of the chance that seeds of a point share, in logits


def grid(size: int) -> tuple[Array, Array]:
    """u and v of a square grid around 0."""
    ticks = (np.arange(size) - (size - 1) / 2) * STEP
    u, v = np.meshgrid(ticks, ticks, indexing="ij")
    return u.ravel(), v.ravel()


def outcomes(rng: np.random.Generator, logits: Array, seeds: int, spread: float = SPREAD) -> Array:
    """(points, seeds) of 0 and 1."""
    shared = logits[:, None] + spread * rng.normal(size=(len(logits), 1))
    return (rng.random((len(logits), seeds)) < 1.0 / (1.0 + np.exp(-shared))).astype(float)


def planted(rng: np.random.Generator, k: float, size: int, seeds: int, slope: float) -> tuple[pd.DataFrame, float]:
    """A sweep of batch size and lr, and the offset of its boundary."""
    u, v = grid(size)
    offset = rng.uniform(-0.5, 0.5) * STEP
    found = outcomes(rng, k * (v - slope * u - offset), seeds)
    return pd.DataFrame({"batch_size": np.repeat(64 * np.exp(u), seeds), "lr": np.repeat(0.1 * np.exp(v), seeds),
                         "diverged": found.ravel()}), offset


def width(k: float) -> float:
    """From probability 0.1 to 0.9 over all sweeps: what points share widens it."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    t = np.linspace(0.0, 10.0 / k, 4001)
    p = 1.0 / (1.0 + np.exp(-(k * t[:, None] + SPREAD * nodes))) @ (weights / weights.sum())
    return 2.0 * float(np.interp(0.9, p, t))
