"""Stochastic Lanczos quadrature: exact moments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curvature_cases import CASES, F64, exact_hessian, snapshot

from trials.measurements.density import density


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_moments_of_each_start_vector_are_exact_up_to_twice_the_steps(case: str, steps: int) -> None:
    module, data = CASES[case]
    shot, h = snapshot(module, data), exact_hessian(module, data)
    nodes, weights = density(shot, starts=3, steps=steps)
    assert len(nodes) == len(weights) == 3 * steps
    assert torch.equal(nodes, nodes.sort().values)
    starts = [shot.stream("density").at(i).normal((len(h),), F64) for i in range(3)]
    for power in range(2 * steps):
        exact = sum(v @ torch.linalg.matrix_power(h, power) @ v / (v @ v) for v in starts) / 3
        torch.testing.assert_close((weights * nodes**power).sum(), exact, rtol=1e-9, atol=1e-12)
    beyond = sum(v @ torch.linalg.matrix_power(h, 2 * steps) @ v / (v @ v) for v in starts) / 3
    assert (weights * nodes ** (2 * steps)).sum() < beyond * (1 - 1e-6)  # the rule ends there, as Gauss's does


def test_moments_are_those_of_the_spectrum_within_their_errors() -> None:
    module, data = CASES["cross-entropy"]
    h = exact_hessian(module, data)
    values, starts = torch.linalg.eigvalsh(h), 400
    nodes, weights = density(snapshot(module, data), starts=starts, steps=8)
    assert weights.sum().item() == pytest.approx(1, rel=1e-12) and (weights >= 0).all()
    size = len(values)
    for power in range(1, 5):
        moments = values**power
        # variance of v^T f(H) v / v^T v over normal v: 2 (mean f^2 - (mean f)^2) / (P + 2)
        error = (2 * moments.var(correction=0) / (size + 2) / starts) ** 0.5
        assert abs((weights * nodes**power).sum() - moments.mean()) < 4 * error


def test_the_whole_spectrum_of_a_small_network() -> None:
    module, data = CASES["squared loss"]
    values = np.linalg.eigvalsh(exact_hessian(module, data))
    nodes, _ = density(snapshot(module, data), starts=1)
    np.testing.assert_allclose(nodes, values, rtol=1e-7, atol=1e-8)
