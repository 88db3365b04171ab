"""Calibration of phase labels: confusion of planted phases by size, spikes in noise of many kinds, and probabilities.

Each phase is planted in several ways. Noise of unequal variance, sparse, quantized or with a mean is random-like.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from analysis.phases import PHASES, Thresholds, label_phases
from trials.weights import weight_rows

SIZES = (32, 48, 64, 128, 256, 512)
DRAWS = {32: 300, 48: 300, 64: 300, 128: 150, 256: 60, 512: 20}  # half of them square, half twice as tall
SHORT = {"random-like": "random", "bleeding-out": "bleed", "bulk+spikes": "spikes", "bulk-decay": "decay",
         "heavy-tailed": "heavy", "rank-collapse": "collapse"}


class Planted:
    """Draws K matrices N x M of each construction, from a generator of its own."""

    def __init__(self, seed: int, draws: int, rows: int, cols: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.shape = draws, rows, cols

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*(shape or self.shape), generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*(shape or self.shape), generator=self.generator, dtype=torch.float64)

    def spikes(self, *strengths: float) -> Tensor:
        """Orthogonal directions, strengths in units of what can just be seen in unit noise."""
        draws, rows, cols = self.shape
        left, right = (torch.linalg.qr(self.normal(draws, size, len(strengths)))[0] for size in (rows, cols))
        return (left * torch.tensor(strengths) * (cols / rows) ** 0.25 * math.sqrt(rows)) @ right.mT

    def colored(self, variances: Tensor) -> Tensor:
        """Noise whose columns, turned at random, have these variances ([M] or [K, M])."""
        turn = torch.linalg.qr(self.normal(self.shape[0], self.shape[2], self.shape[2]))[0]
        return (self.normal() * variances.sqrt().unsqueeze(-2)) @ turn.mT

    def correlated(self, phi: float) -> Tensor:
        place = torch.arange(self.shape[2], dtype=torch.float64)
        return self.normal() @ torch.linalg.cholesky(phi ** (place[:, None] - place).abs()).mT

    def pareto(self, mu: float) -> Tensor:
        return self.uniform() ** (-1.0 / mu) * self.normal().sign()

    def student(self, freedom: int) -> Tensor:
        chi = sum((self.normal().square() for _ in range(freedom)), torch.zeros(self.shape, dtype=torch.float64))
        return self.normal() / (chi / freedom).sqrt()

    def half_rank(self) -> Tensor:
        draws, rows, cols = self.shape
        return self.normal(draws, rows, cols // 2) @ self.normal(draws, cols // 2, cols)


def grid(cols: int, high: float) -> Tensor:
    """[M] values from 0 to ``high``."""
    return torch.linspace(0.0, high, cols, dtype=torch.float64)


CASES: dict[str, tuple[str, Callable[[Planted], Tensor]]] = {
    "normal": ("random-like", lambda p: p.normal()),
    "uniform": ("random-like", lambda p: p.uniform() - 0.5),
    "rows, ln sd 0.2": ("random-like", lambda p: p.normal() * (0.2 * p.normal(*p.shape[:2], 1)).exp()),
    "columns, ln sd 0.1": ("random-like", lambda p: p.normal() * (0.1 * p.normal(p.shape[0], 1, p.shape[2])).exp()),
    "rows of variance 1 and 2": ("random-like",
                                 lambda p: p.normal() * (1 + torch.arange(p.shape[1])[:, None] % 2) ** 0.5),
    "90% zeros": ("random-like", lambda p: p.normal() * (p.uniform() < 0.1)),
    "ternary": ("random-like", lambda p: (p.normal() / 1.5).round().clamp(-1, 1)),
    "mean 0.2": ("random-like", lambda p: p.normal() + 0.2),
    "positive": ("random-like", lambda p: p.normal().abs()),
    "AR(1), 0.1": ("random-like", lambda p: p.correlated(0.1)),
    "t, 5": ("random-like", lambda p: p.student(5)),
    "4 spikes of 1.3": ("bleeding-out", lambda p: p.normal() + p.spikes(*[1.3] * 4)),
    "6 spikes of 1.2 to 1.5": ("bleeding-out", lambda p: p.normal() + p.spikes(1.2, 1.25, 1.3, 1.35, 1.4, 1.5)),
    "1 spike of 5": ("bulk+spikes", lambda p: p.normal() + p.spikes(5.0)),
    "3 spikes of 3": ("bulk+spikes", lambda p: p.normal() + p.spikes(3.0, 3.0, 3.0)),
    "9 spikes of 2 to 10": ("bulk+spikes", lambda p: p.normal() + p.spikes(*range(2, 11))),
    "3 spikes of 3, rows 0.2": ("bulk+spikes", lambda p: CASES["rows, ln sd 0.2"][1](p) + p.spikes(3.0, 3.0, 3.0)),
    "columns, e^0 to e^-4": ("bulk-decay", lambda p: p.normal() * (-grid(p.shape[2], 2.0)).exp()),
    "the same, turned": ("bulk-decay", lambda p: p.colored((-grid(p.shape[2], 4.0)).exp())),
    "two levels, 1 and 10": ("bulk-decay", lambda p: p.colored(1.0 + 9.0 * (torch.arange(p.shape[2]) % 2))),
    "AR(1), 0.6": ("bulk-decay", lambda p: p.correlated(0.6)),
    "M/3 spikes of 1 to 4": ("bulk-decay", lambda p: p.normal() + p.spikes(*(1 + grid(p.shape[2] // 3, 3.0)).tolist())),
    "Pareto 1": ("heavy-tailed", lambda p: p.pareto(1.0)),
    "Pareto 1.5": ("heavy-tailed", lambda p: p.pareto(1.5)),
    "Pareto 1.9": ("heavy-tailed", lambda p: p.pareto(1.9)),
    "Pareto 2.5": ("heavy-tailed", lambda p: p.pareto(2.5)),
    "Pareto 3.5": ("heavy-tailed", lambda p: p.pareto(3.5)),
    "t, 2": ("heavy-tailed", lambda p: p.student(2)),
    "variances of Pareto 1": ("heavy-tailed", lambda p: p.colored(1.0 / p.uniform(p.shape[0], p.shape[2]))),
    "half rank": ("rank-collapse", lambda p: p.half_rank()),
    "half rank, noise 1e-4": ("rank-collapse", lambda p: p.half_rank() + 1e-4 * p.normal()),
    "70% of 1e-3": ("rank-collapse", lambda p: p.colored(torch.where(grid(p.shape[2], 1.0) < 0.7, 1e-6, 1.0))),
}


def measured(name: str, cols: int, draws: int) -> pd.DataFrame:
    """Labels of one construction, without a least size."""
    seed = list(CASES).index(name)
    rows = [row for tall in (1, 2) for row in
            weight_rows(list(CASES[name][1](Planted(seed, max(1, draws // 2), cols * tall, cols))))[0]]
    return label_phases(pd.DataFrame(rows), Thresholds(least_cols=0, least_collapse=0, least_bleeding=0))


def main(sizes: tuple[int, ...] = SIZES, most: int = 10**9) -> None:
    """Print a table a size, then how often labels of a given probability are right."""
    torch.set_num_threads(1)
    every = []
    for cols in sizes:
        draws = min(DRAWS[cols], most)
        print(f"\nM = {cols}, N = M and 2 M, {draws} draws a row, % labelled; spikes: mean, and mean balanced")
        print(f"{'planted':>14} {'as':<26}{'spikes':>8}{'bal.':>7}" + "".join(f"{s:>9}" for s in SHORT.values())
              + f"{'none':>7}{'probability':>13}")
        for name, (truth, _) in CASES.items():
            found = measured(name, cols, draws)
            every.append(found.assign(truth=truth, size=cols)[["truth", "size", "phase", "phase_probability"]])
            shares = [100.0 * (found["phase"] == phase).mean() for phase in PHASES]
            print(f"{truth:>14} {name:<26}{found['n_spikes'].mean():>8.1f}{found['n_spikes_balanced'].mean():>7.1f}"
                  + "".join(f"{share:>9.0f}" for share in shares) + f"{100.0 * found['phase'].isna().mean():>7.0f}"
                  + f"{found['phase_probability'].mean():>13.2f}", flush=True)
    rows = pd.concat(every).replace({"truth": SHORT, "phase": SHORT}).fillna({"phase": "none"})
    print("\nplanted (rows) and labelled, %, each construction alike")
    for cols, some in rows.groupby("size"):
        shares = pd.crosstab(some["truth"], some["phase"], normalize="index").mul(100).round(0).astype(int)
        names = list(SHORT.values())
        print(f"\nM = {cols}\n{shares.reindex(names).reindex(columns=[*names, 'none'], fill_value=0).to_string()}")
    rows["right"] = rows["phase"] == rows["truth"]
    rows = rows[rows["phase"] != "none"]
    print("\nlabels by their probability: share that is right, and how many")
    bins = pd.cut(rows["phase_probability"], [0, 0.5, 0.7, 0.9, 0.99, 1.0])
    held = rows.groupby([bins, "size"], observed=True)["right"]
    print(held.agg(["mean", "size"]).unstack("size").round(2).to_string())


if __name__ == "__main__":
    main()
