"""Calibration of laws: how often the 95% interval covers the truth that was planted, over simulated sweeps.

Asked: 92% to 98%. Misses are marked. Widths and biases are those of ln(parameter) for positive parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.estimates import Estimate
from analysis.laws.collapse import collapse
from analysis.laws.fit import fit_law
from analysis.laws.groups import fit_grouped

Array = npt.NDArray[np.float64]
Method = Literal["profile", "bootstrap"]
REPEATS = 500


def report(name: str, setting: str, truth: float, log: bool,
           estimate: Callable[[np.random.Generator], tuple[Estimate, float]]) -> None:
    """Print a row of the table; of the p-values that come with the estimates, unless NaN, the share below 5%."""
    rng = np.random.default_rng(1)
    found, p = zip(*(estimate(rng) for _ in range(REPEATS)), strict=True)
    change = (lambda value: math.log(value) if value > 0 else -math.inf) if log else float
    covered = float(np.mean([each.covers(truth) for each in found]))
    width = np.median([change(each.high) - change(each.low) for each in found])
    bias = np.median([change(each.value) - change(truth) for each in found])
    mark = "" if 0.92 <= covered <= 0.98 else "  miss"
    note = "" if np.isnan(p[0]) else f"  p < 5%: {np.mean(np.array(p) < 0.05):.1%}"
    print(f"{name:<22}{setting:<54}{REPEATS:>8}{covered:>10.1%}{width:>10.3f}{bias:>+10.3f}{mark}{note}", flush=True)


def noisy(rng: np.random.Generator, y: Array, noise: float | Array) -> Array:
    """y with errors of this share of it, log-normal."""
    return np.asarray(y * np.exp(noise * rng.normal(size=y.shape)))


def law(name: str, x: Array, y: Array, parameter: str, truth: float, noise: float | Array,
        method: Method = "profile") -> None:
    """A law of independent rows, with equal noise or one for each."""
    def estimate(rng: np.random.Generator) -> tuple[Estimate, float]:
        data = pd.DataFrame({"x": x, "y": noisy(rng, y, noise)})
        return fit_law(data, name, "x", "y", method=method).estimates[parameter], math.nan

    most, least = np.max(noise), np.min(noise)
    share = f"{most:.0%}" if most == least else f"{least:.0%} to {most:.0%}"
    report(f"{name} {parameter}", f"{len(x)} x from 1 to {x[-1]:.0f}, noise {share}, {method}", truth,
           parameter != "exponent", estimate)


def clustered(xs: int, seeds: int, shared_by: str, shared: float, method: Method = "profile") -> None:
    """A power law, with a row for each x and seed; those of one x, or of one seed, have an error in common."""
    x = np.geomspace(1, 1024, xs)
    grid = pd.MultiIndex.from_product([x, range(seeds)], names=["x", "seed"]).to_frame(index=False)
    codes = grid[shared_by].rank(method="dense").to_numpy(int) - 1

    def estimate(rng: np.random.Generator) -> tuple[Estimate, float]:
        common = noisy(rng, np.ones(codes.max() + 1), shared)[codes]
        y = noisy(rng, grid["x"].to_numpy() ** 0.5 * common, 0.1)
        fit = fit_law(grid.assign(y=y), "power", "x", "y", cluster=shared_by, method=method)
        return fit.estimates["exponent"], math.nan

    report("power exponent", f"{xs} x, {seeds} seeds, noise {shared:.0%} per {shared_by} and 10%, {method}", 0.5, False,
           estimate)


def grouped(groups: int, xs: int, noise: float) -> None:
    """Power laws with one exponent."""
    x = np.geomspace(1, 256, xs)
    frame = pd.MultiIndex.from_product([range(groups), x], names=["group", "x"]).to_frame(index=False)

    def estimate(rng: np.random.Generator) -> tuple[Estimate, float]:
        y = 2.0 ** frame["group"].to_numpy() * frame["x"].to_numpy() ** 0.5
        fit = fit_grouped(frame.assign(y=noisy(rng, y, noise)), "power", "x", "y", "group", ["exponent"])
        return fit.shared["exponent"], fit.p_shared

    report("grouped exponent", f"{groups} groups of {xs}, noise {noise:.0%}", 0.5, False, estimate)


def collapsed(shape: str, truth: float, noise: float, replicates: int) -> None:
    """Curves over learning rate for five batch sizes."""
    frame = pd.MultiIndex.from_product([4.0 ** np.arange(1, 6), np.geomspace(0.01, 1, 7), range(replicates)],
                                       names=["b", "lr", "seed"]).to_frame(index=False)
    u = np.log(frame["lr"] / frame["b"] ** truth).to_numpy()
    middle = u.mean()
    y = {"sigmoid": 0.1 + 1 / (1 + np.exp(-2 * (u - middle))), "peak": np.exp(-((u - middle) ** 2) / 8)}[shape]

    def estimate(rng: np.random.Generator) -> tuple[Estimate, float]:
        found = collapse(frame.assign(y=noisy(rng, y, noise)), "lr", "y", "b")
        return found.estimates["exponent"], found.p_collapse

    report("collapse exponent", f"{shape}, c = {truth}, {len(frame)} rows, noise {noise:.0%}", truth, False, estimate)


def main() -> None:
    """Print the table."""
    print(f"{'name':<22}{'setting':<54}{'repeats':>8}{'coverage':>10}{'width':>10}{'bias':>10}   (medians)")
    for n in (6, 10, 20):
        x: Array = np.geomspace(1, 1024, n)
        for noise in (0.05, 0.2):
            law("power", x, x**0.5, "exponent", 0.5, noise)
    for growing in (np.full(20, 0.2), np.geomspace(0.02, 0.4, 20)):
        law("power", x, x**0.5, "exponent", 0.5, growing, "bootstrap")
    for xs in (6, 10):
        clustered(xs, 3, "x", 0.1)
        clustered(xs, 3, "x", 0.3)
    clustered(12, 2, "x", 0.1)
    clustered(10, 3, "x", 0.1, "bootstrap")
    clustered(8, 3, "seed", 0.1)
    clustered(8, 6, "seed", 0.3)
    x = np.asarray(2.0 ** np.arange(11))
    law("saturating", x, 1 / (1 + 101 / x), "x_half", 101, 0.1)
    law("saturating", x[:6], 1 / (1 + 101 / x[:6]), "x_half", 101, 0.1)
    law("surge", x, 2 / (np.sqrt(64 / x) + np.sqrt(x / 64)), "x_peak", 64, 0.1)
    law("power_offset", x, 0.5 + x**-0.5, "exponent", -0.5, 0.05)
    for groups, xs in ((3, 6), (5, 8)):
        grouped(groups, xs, 0.1)
    collapsed("sigmoid", 1.0, 0.1, 3)
    collapsed("peak", 0.5, 0.1, 1)


if __name__ == "__main__":
    main()
