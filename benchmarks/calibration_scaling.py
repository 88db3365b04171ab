"""Calibration of the laws of scaling and of optima: how often 95% intervals hold the planted exponent, and how wide.

A loss L = E + A N^-a + B D^-b on grids and on equal-compute designs; the best learning rate c B^0.5 over batch sizes,
for losses that are parabolas in ln lr and such that are not; the largest stable rate, with and without replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.estimates import Estimate
from analysis.laws.optimum import fit_optimum
from analysis.laws.scaling import fit_scaling

Array = npt.NDArray[np.float64]
REPEATS = 500
SLOW = 100  # sweeps of laws that are slow against the grid
LOSS = {"irreducible": 1.69, "n_scale": 406.4, "n_exponent": 0.34, "d_scale": 410.7, "d_exponent": 0.28}


def grid(side: int) -> tuple[Array, Array]:
    """Sizes and amounts of data, each with each."""
    n, d = np.meshgrid(np.geomspace(1e7, 1e10, side), np.geomspace(1e9, 1e12, side))
    return n.ravel(), d.ravel()


def equal_compute(budgets: int, each: int) -> tuple[Array, Array]:
    """``each`` sizes about that of 20 tokens a parameter, at budgets of 6 N D from 6e17 to 6e21."""
    compute = np.repeat(np.geomspace(6e17, 6e21, budgets), each)
    n = np.sqrt(compute / 120) * np.tile(np.geomspace(1 / 6, 6, each), budgets)
    return n, compute / (6 * n)


def uneven(amounts: Array, low: float, high: float) -> Array:
    """A noise from ``low`` at the least amount to ``high`` at the largest, (n,)."""
    share = np.log(amounts / amounts.min()) / np.log(amounts.max() / amounts.min())
    return np.asarray(low * (high / low) ** share)


def loss_scaling(rng: np.random.Generator, design: tuple[Array, Array], noise: float | Array) -> dict[str, Estimate]:
    """Estimates from one table of losses."""
    n, d = design
    e, a, alpha, b, beta = LOSS.values()
    loss = (e + a * n**-alpha + b * d**-beta) * np.exp(noise * rng.normal(size=len(n)))
    return dict(fit_scaling(pd.DataFrame({"n": n, "d": d, "loss": loss}), "loss", "n", "d").estimates)


def sweep(sizes: int, rates: Array, seeds: int, exponent: float = 0.5) -> tuple[pd.DataFrame, Array]:
    """A row for each batch size, rate and seed, and ln of the best rate there: batches from 16 by factors of 2, and a
    best rate of 0.0055 B^0.5, or of another exponent and 0.11 at B = 400."""
    b, r, s = (each.ravel() for each in np.meshgrid(np.arange(sizes), rates, np.arange(seeds), indexing="ij"))
    batch = 16 * 2.0**b
    return pd.DataFrame({"batch": batch, "lr": r, "seed": s}), np.log(0.11 * (batch / 400) ** exponent)


def optimum(rng: np.random.Generator, sizes: int, rates: int, seeds: int, skewed: bool, noise: float
            ) -> dict[str, Estimate]:
    """Estimates from one sweep of the learning rate."""
    rows, best = sweep(sizes, np.geomspace(0.004, 4, rates), seeds)
    u = np.log(rows["lr"]) - best
    loss = 0.5 + 0.1 * (np.exp(u) - 1 - u if skewed else u**2 / 2)
    rows["loss"] = loss * np.exp(noise * rng.normal(size=len(rows)))
    return dict(fit_optimum(rows, "power", "lr", "loss", "batch").estimates)


def stable(rng: np.random.Generator, sizes: int, rates: int, seeds: int, spread: float, exponent: float = 0.5
           ) -> dict[str, Estimate]:
    """Estimates from one sweep, where replicates differ by ``spread`` in ln of the rate at which they diverge; where
    the grid begins is chance too."""
    rows, best = sweep(sizes, np.geomspace(0.004, 4, rates) * 2 ** rng.uniform(-0.5, 0.5), seeds, exponent)
    code = np.unique(rows["batch"], return_inverse=True)[1] * seeds + rows["seed"]
    rows["stable"] = np.log(rows["lr"]) < best + spread * rng.normal(size=sizes * seeds)[code]
    return dict(fit_optimum(rows, "power", "lr", "stable", "batch", mode="largest_stable").estimates)


def line(name: str, setting: str, simulate: Callable[[np.random.Generator], dict[str, Estimate]],
         truths: dict[str, float], repeats: int = REPEATS) -> None:
    """Simulate, and print a row for each of the parameters ``truths``."""
    rng = np.random.default_rng(0)
    found = [simulate(rng) for _ in range(repeats)]
    for parameter, truth in truths.items():
        estimates = [each[parameter] for each in found]
        held = np.mean([each.covers(truth) for each in estimates])
        width = np.median([each.high - each.low for each in estimates])
        bias = np.mean([each.value for each in estimates]) - truth
        print(f"{name:<24}{setting:<44}{parameter:<12}{repeats:>8}{held:>10.1%}{width:>9.4f}{bias:>9.4f}", flush=True)


def main() -> None:
    """Print the table."""
    print(f"{'':<24}{'':<44}{'parameter':<12}{'repeats':>8}{'coverage':>10}{'width':>9}{'bias':>9}")
    exponents = {name: LOSS[name] for name in ("n_exponent", "d_exponent")}
    for setting, design, noise in (("6 x 6 grid", grid(6), 0.01), ("10 x 10 grid", grid(10), 0.005),
                                   ("6 budgets of 7 sizes", equal_compute(6, 7), 0.02)):
        line("loss scaling", f"{setting}, noise {noise:.1%}", partial(loss_scaling, design=design, noise=noise),
             exponents)
    for setting, design, along in (("10 x 10 grid", grid(10), 0), ("10 x 10 grid", grid(10), 1),
                                   ("9 budgets of 25 sizes", equal_compute(9, 25), 0),
                                   ("9 budgets of 25 sizes", equal_compute(9, 25), 1)):
        line("loss scaling", f"{setting}, noise 5% to 0.3% along {'nd'[along]}",
             partial(loss_scaling, design=design, noise=uneven(design[along], 0.05, 0.003)), exponents)
    for sizes, rates, seeds, skewed, noise in ((8, 12, 1, False, 0.01), (6, 9, 3, False, 0.04), (8, 12, 5, True, 0.01),
                                               (6, 9, 3, True, 0.04)):
        shape = "skewed" if skewed else "parabola"
        line("optimum", f"{sizes} sizes, {rates} rates, {seeds} seeds, {shape}, {noise:.0%}",
             partial(optimum, sizes=sizes, rates=rates, seeds=seeds, skewed=skewed, noise=noise), {"exponent": 0.5})
    for sizes, rates, seeds, spread in ((8, 12, 1, 0.0), (8, 12, 1, 0.3), (6, 12, 3, 0.3), (8, 12, 5, 0.6)):
        line("largest stable", f"{sizes} sizes, {rates} rates, {seeds} seeds, spread {spread:g}",
             partial(stable, sizes=sizes, rates=rates, seeds=seeds, spread=spread), {"exponent": 0.5})
    for exponent in (0.0, -0.02, -0.05, -0.1, -0.2, -0.3):  # slow against the grid
        for seeds, spread in ((1, 0.0), (3, 0.0), (3, 0.02)):
            line("largest stable", f"9 sizes, 12 rates, {seeds} seeds, spread {spread:g}, {exponent:g}",
                 partial(stable, sizes=9, rates=12, seeds=seeds, spread=spread, exponent=exponent),
                 {"exponent": exponent}, SLOW)


if __name__ == "__main__":
    main()
