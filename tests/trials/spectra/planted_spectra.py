"""Planted matrices and eigenvalues shared by the tests of this folder."""

from __future__ import annotations

import torch
from torch import Tensor

from trials.spectra.eigen import Spectrum


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def with_spikes(seed: int, draws: int, rows: int, cols: int, strengths: list[float]) -> Tensor:
    """Unit noise plus orthonormal directions times S sqrt(N), S in units of the visibility threshold Q^(-1/4)."""
    generator = seeded(seed)
    left = torch.linalg.qr(torch.randn(draws, rows, len(strengths), generator=generator))[0]
    right = torch.linalg.qr(torch.randn(draws, cols, len(strengths), generator=generator))[0]
    signal = torch.tensor(strengths) * (cols / rows) ** 0.25 * rows**0.5
    return torch.randn(draws, rows, cols, generator=generator) + (left * signal) @ right.mT


def pareto(seed: int, draws: int, size: int, exponent: float) -> Tensor:
    """[draws, size] values >= 1 of density x^-exponent, descending."""
    uniform = torch.rand(draws, size, generator=seeded(seed), dtype=torch.float64)
    return (uniform ** (-1.0 / (exponent - 1.0))).sort(descending=True)[0]


def of_eigenvalues(lam: Tensor) -> Spectrum:
    """A spectrum without its matrices (Q = 2)."""
    draws, cols = lam.shape
    return Spectrum(lam.new_zeros((1, 1, 1)).expand(draws, 2 * cols, cols), lam, torch.ones(draws, dtype=torch.bool))
