"""The geometry of a cloud of points: what the measurements of one layer's activations share.

Shapes: N points, D dimensions, R = rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ROUNDING = 1e-7  # relative size of the rounding of float32, the usual type of activations
RESOLUTION = 1e-5  # singular values below this fraction of the largest count as 0: rounding, of float32 or of the Gram


@dataclass(frozen=True)
class Principal:
    """Principal components. ``variances``: (min(N, D),), float64, ascending, not negative: the largest eigenvalues of
    the covariance X_c^T X_c / N; the others are 0. ``basis_NR``: an orthonormal basis of the columns of X_c."""

    variances: Tensor
    basis_NR: Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """``points_ND``: (N, D), float64, at least one of each."""

    points_ND: Tensor

    @cached_property
    def centred_ND(self) -> Tensor:
        """X_c: the points minus their mean; exactly zero where all points are equal up to the rounding of float32."""
        centred_ND = self.points_ND - self.points_ND.mean(0)
        constant = centred_ND.square().sum() <= ROUNDING**2 * self.points_ND.square().sum()
        return torch.where(constant, 0.0, centred_ND)

    @cached_property
    def principal(self) -> Principal:
        """From the eigenvectors of the smaller of the two Gram matrices."""
        x_ND = self.centred_ND
        tall = x_ND.shape[0] >= x_ND.shape[1]
        eigenvalues, vectors = torch.linalg.eigh(x_ND.mT @ x_ND if tall else x_ND @ x_ND.mT)
        kept = eigenvalues > RESOLUTION**2 * eigenvalues[-1]
        basis_NR = x_ND @ vectors[:, kept] if tall else vectors[:, kept]
        basis_NR = basis_NR / torch.linalg.vector_norm(basis_NR, dim=0)
        return Principal(eigenvalues.clamp(min=0.0) / len(x_ND), basis_NR)

    @cached_property
    def squared_distances_NN(self) -> Tensor:
        """(N, N); exactly 0 between points closer than ten times the rounding of float32."""
        x_ND = self.centred_ND
        norms_N = x_ND.square().sum(-1)
        squares_NN = norms_N[:, None] + norms_N - 2.0 * (x_ND @ x_ND.mT)
        squares_NN = torch.where(squares_NN <= (10 * ROUNDING) ** 2 * norms_N.mean(), 0.0, squares_NN)
        return squares_NN.fill_diagonal_(0.0)
