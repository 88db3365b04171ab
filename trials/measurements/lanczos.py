"""Lanczos' method with full reorthogonalization: the extreme eigenvalues of a matrix known by its products alone.

Shapes: P the size of the matrix, M the steps taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]  # v (P,) -> A v (P,), A symmetric

# Numbers that a basis may hold, half a gigabyte: above 6.7e5 parameters it ends with fewer than LIMIT vectors.
MEMORY = 2**26
LIMIT = 100
CHECK_EVERY = 5  # steps between two looks at whether the eigenvalues have converged
EXHAUSTED = 1e-12  # a remainder this small, relative to the matrix, is rounding: the basis spans an invariant space


@dataclass(frozen=True, eq=False)
class Krylov:
    """An orthonormal basis of span(v, A v, ..., A^(M-1) v) in which A is tridiagonal.

    ``basis_MP``; ``diagonal_M``; ``below_M``, whose last number couples the space to the vector that would come next
    (0 if the space is invariant).
    """

    basis_MP: Tensor
    diagonal_M: Tensor
    below_M: Tensor

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        inner = self.below_M[:-1]
        matrix = torch.diag(self.diagonal_M) + torch.diag(inner, 1) + torch.diag(inner, -1)
        if not matrix.isfinite().all():
            return torch.full_like(self.diagonal_M, torch.nan), torch.full_like(matrix, torch.nan)
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(0), vectors.flip(1)

    @property
    def values_M(self) -> Tensor:
        """Ritz values, descending. NaN where a product was not finite."""
        return self._eigen[0]

    @property
    def residuals_M(self) -> Tensor:
        """norm(A u - theta u) of each Ritz pair: some eigenvalue of A is no farther than this from theta."""
        return self.below_M[-1].abs() * self._eigen[1][-1].abs()

    @property
    def weights_M(self) -> Tensor:
        """Squared component of the start vector along each Ritz vector; they sum to 1 (Gauss quadrature)."""
        return self._eigen[1][0].square()

    def vectors(self, count: int) -> Tensor:
        """Ritz vectors of the ``count`` largest values, (count, P)."""
        return self._eigen[1][:, :count].T @ self.basis_MP

    @property
    def trace(self) -> Tensor:
        """tr(Q^T A Q), Q the basis."""
        return self.diagonal_M.sum()

    @property
    def square(self) -> Tensor:
        """norm(A Q)_F^2, Q the basis."""
        return self.diagonal_M.square().sum() + 2 * self.below_M[:-1].square().sum() + self.below_M[-1].square()

    def project_out(self, v: Tensor) -> Tensor:
        """v without its component in the space."""
        return v - (self.basis_MP @ v) @ self.basis_MP

    def converged(self, top: int, bottom: int, tolerance: float) -> bool:
        """Whether the residuals of the ``top`` largest and ``bottom`` smallest values are below ``tolerance`` times the
        largest absolute value."""
        if len(self.values_M) < top + bottom:
            return False
        residuals = self.residuals_M
        wanted = torch.cat([residuals[:top], residuals[len(residuals) - bottom :]])
        return bool((wanted <= tolerance * self.values_M.abs().max()).all())


def lanczos(operator: Operator, start_P: Tensor, limit: int = LIMIT,
            settled: Callable[[Krylov], bool] | None = None) -> Krylov:
    """Take up to ``limit`` steps (one product each) from ``start_P``; fewer if the space is exhausted or ``settled``.

    A single start vector finds each multiple eigenvalue once. After each product the vector is made orthogonal to the
    whole basis, twice (Golub & Van Loan, Matrix Computations, section 10.3).
    """
    size = len(start_P)
    limit = max(1, min(limit, size, MEMORY // size))
    basis = start_P.new_empty((limit, size))
    diagonal: list[Tensor] = []
    below: list[Tensor] = []
    vector, scale = start_P / torch.linalg.vector_norm(start_P), 0.0
    for step in range(limit):
        basis[step] = vector
        image, done = operator(vector), basis[: step + 1]
        diagonal.append(vector @ image)
        for _ in range(2):
            image = image - (done @ image) @ done
        below.append(torch.linalg.vector_norm(image))
        remainder = below[-1].item()
        scale = max(scale, abs(diagonal[-1].item()), remainder)
        space = Krylov(done, torch.stack(diagonal), torch.stack(below))
        if not remainder > EXHAUSTED * scale:  # NaN ends it too
            break
        if settled is not None and (step + 1) % CHECK_EVERY == 0 and settled(space):
            break
        vector = image / below[-1]
    return space
