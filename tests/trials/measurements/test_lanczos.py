"""Lanczos against numpy's eigensolver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curvature_cases import F64, normal

from trials.measurements.lanczos import Krylov, lanczos


def symmetric(size: int) -> torch.Tensor:
    a = normal(size, size)
    return a + a.T


def test_all_eigenvalues_when_it_runs_to_the_end() -> None:
    a = symmetric(60)
    space = lanczos(a.mv, normal(60, seed=1))
    np.testing.assert_allclose(space.values_M, np.linalg.eigvalsh(a)[::-1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(space.basis_MP @ space.basis_MP.T, torch.eye(60, dtype=F64), rtol=0, atol=1e-12)
    torch.testing.assert_close(space.trace, a.trace())
    torch.testing.assert_close(space.square, a.square().sum())


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_residuals_are_exact_and_bound_the_distance_to_an_eigenvalue(steps: int) -> None:
    a = symmetric(60)
    space = lanczos(a.mv, normal(60, seed=1), steps)
    exact, vectors = torch.linalg.eigvalsh(a), space.vectors(steps)
    assert len(space.values_M) == steps
    for value, vector, residual in zip(space.values_M, vectors, space.residuals_M, strict=True):
        error = torch.linalg.vector_norm(a @ vector - value * vector)
        torch.testing.assert_close(error, residual, rtol=1e-9, atol=1e-10)
        assert (exact - value).abs().min() <= residual + 1e-12
    torch.testing.assert_close(space.square, (a @ space.basis_MP.T).square().sum())
    torch.testing.assert_close(space.trace, (space.basis_MP @ a @ space.basis_MP.T).trace())


def test_large_eigenvalues_far_apart_are_found_early_and_then_it_stops() -> None:
    size = 2000
    diagonal = torch.linspace(-1, 1, size, dtype=F64)
    diagonal[:4] = torch.tensor([100.0, 50.0, 30.0, -40.0], dtype=F64)
    products = []

    def product(v: torch.Tensor) -> torch.Tensor:
        products.append(v)
        return diagonal * v

    space = lanczos(product, normal(size), settled=lambda found: found.converged(3, 1, 1e-8))
    np.testing.assert_allclose(space.values_M[[0, 1, 2, -1]], [100, 50, 30, -40], rtol=1e-12)
    assert len(products) == len(space.basis_MP) <= 20


def test_an_invariant_space_ends_it() -> None:
    a = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0, 1.0, 0.0], dtype=F64))
    space = lanczos(a.mv, torch.ones(6, dtype=F64))
    np.testing.assert_allclose(space.values_M, [3, 1, 0], atol=1e-14)
    assert space.residuals_M.max() < 1e-12
    np.testing.assert_allclose(space.weights_M, [1 / 2, 1 / 3, 1 / 6], rtol=1e-12)


def test_zero_and_non_finite_matrices() -> None:
    zero = lanczos(torch.zeros_like, torch.ones(4, dtype=F64))
    assert zero.values_M.tolist() == [0.0] and zero.residuals_M.tolist() == [0.0]
    bad = lanczos(lambda v: v * torch.nan, torch.ones(4, dtype=F64))
    assert bad.values_M.isnan().all()
    assert not bad.converged(1, 0, 1.0)


def test_converged_means_the_wanted_residuals() -> None:
    # Ritz vectors end in the components (0.8, 0.6) for the values 25 and 0 of [[9, 12], [12, 16]].
    space = Krylov(torch.eye(2, dtype=F64), torch.tensor([9.0, 16.0], dtype=F64), torch.tensor([12.0, 0.5], dtype=F64))
    np.testing.assert_allclose(space.residuals_M, [0.4, 0.3], rtol=1e-12)
    assert space.converged(1, 0, 0.4001 / 25) and not space.converged(1, 0, 0.3999 / 25)
    assert space.converged(0, 1, 0.3001 / 25) and not space.converged(0, 1, 0.2999 / 25)
    assert not space.converged(2, 1, 1.0)  # three values are wanted of two
