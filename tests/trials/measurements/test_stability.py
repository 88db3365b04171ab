"""Stability ratios against the exact second-moment dynamics of SGD on linear regression."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from curvature_cases import CASES, F64, exact_hessian, normal, regression, snapshot
from torch import Tensor, nn

from trials.measurements import batch_hessian
from trials.measurements.batch_hessian import batches
from trials.measurements.stability import MEASUREMENT, batch_stability_ratio, sharpness_ratio, stability_ratio
from trials.measurements.trace import traces
from trials.tasks.gaussian_regression import GaussianRegression


def growth(hessians: Tensor, batch_size: int, lr: float) -> float:
    """Spectral radius of S -> E (I - lr H_B) S (I - lr H_B), B samples with replacement from ``hessians`` (n, d, d)."""
    n, d = hessians.shape[:2]
    eye = torch.eye(d, dtype=F64)
    first = hessians.mean(0)
    pairs = sum(torch.kron(h, h) for h in hessians) / n
    second = pairs / batch_size + (1 - 1 / batch_size) * torch.kron(first, first)
    kron = torch.kron(eye, eye) - lr * (torch.kron(first, eye) + torch.kron(eye, first)) + lr**2 * second
    return float(torch.linalg.eigvalsh((kron + kron.T) / 2).abs().max())


def edge(hessians: Tensor, batch_size: int) -> float:
    """The lr above which that is unstable, by bisection."""
    low, high = 0.0, 4 / float(torch.linalg.eigvalsh(hessians.mean(0))[-1])
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if growth(hessians, batch_size, middle) <= 1 else (low, middle)
    return low


def test_the_reference_itself() -> None:
    """By enumeration of all batches of two."""
    x = normal(4, 2)
    hessians, lr = x[:, :, None] * x[:, None, :], 0.3
    eye = torch.eye(2, dtype=F64)
    total = torch.zeros(4, 4, dtype=F64)
    for i, j in combinations_with_replacement(range(4), 2):
        step = eye - lr * (hessians[i] + hessians[j]) / 2
        total += (1 if i == j else 2) / 16 * torch.kron(step, step)
    assert growth(hessians, 2, lr) == pytest.approx(torch.linalg.eigvals(total).abs().max().item(), rel=1e-10)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 50])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_both_conditions_are_necessary(batch_size: int, scale: float) -> None:
    """At the exact edge neither ratio exceeds 1; ``scale`` stretches one input, so that samples differ in norm."""
    x = normal(12, 4)
    x[:, 0] *= scale
    hessians = x[:, :, None] * x[:, None, :]
    lr, h = edge(hessians, batch_size), hessians.mean(0)
    trace, square = h.trace(), h.square().sum()
    batch_square = hessians.square().sum((1, 2)).mean() / batch_size + (1 - 1 / batch_size) * square
    measured = batch_stability_ratio(lr, trace, batch_square)
    formula = stability_ratio(lr, batch_size, trace, square)
    assert 0.05 < formula < measured <= 1 + 1e-9  # samples of unequal norm: the formula knows only the mean norm


def test_gaussian_inputs_in_closed_form() -> None:
    """Exact edge 2 / (1 + (d + 1) / B). ``batch_stability_ratio`` is 1 there; ``stability_ratio`` puts the edge at
    2 / (1 + (d - 1) / B), since it leaves out the variance 2 d of norm(x)^2."""
    d = 20
    trace = square = torch.tensor(float(d), dtype=F64)
    for batch_size in (1, 4, 64):
        lr = 2 / (1 + (d + 1) / batch_size)
        factor = 1 - 2 * lr + lr**2 * (1 + (d + 1) / batch_size)  # of E norm(w - w*)^2 in one step
        assert factor == pytest.approx(1)
        expected = (1 + (d - 1) / batch_size) / (1 + (d + 1) / batch_size)
        assert stability_ratio(lr, batch_size, trace, square).item() == pytest.approx(expected)
        x = normal(4000, batch_size, d, seed=batch_size)
        squares = (x.mT @ x / batch_size).square().sum((1, 2)) if d < batch_size else (
            x @ x.mT / batch_size).square().sum((1, 2))
        ratio, error = batch_stability_ratio(lr, trace, squares).item(), (lr / 2 * squares.std() / d / 4000**0.5).item()
        assert abs(ratio - 1) < 4 * error < 0.05
    assert stability_ratio(0.1, 1, trace, square).item() == pytest.approx(0.1 * d / 2)  # lr tr(H) / 2, at B = 1 alone
    assert stability_ratio(0.1, 10**9, trace, square).item() == pytest.approx(0.1 * 1 / 2)


def test_simulated_sgd_around_the_edge() -> None:
    """SGD on fresh Gaussian samples: E norm(w - w*)^2 shrinks 10% below the exact edge and grows 10% above."""
    d, batch_size, copies = 8, 4, 20000
    for factor in (0.9, 1.1):
        lr = factor * 2 / (1 + (d + 1) / batch_size)
        w, sizes = normal(copies, d, seed=1), []
        for step in range(4):
            sizes.append(w.square().sum(1).mean().item())
            x = normal(copies, batch_size, d, seed=2 + step)
            w = w - lr * torch.einsum("cbd,cb->cd", x, torch.einsum("cbd,cd->cb", x, w)) / batch_size
        sizes.append(w.square().sum(1).mean().item())
        expected = 1 - 2 * lr + lr**2 * (1 + (d + 1) / batch_size)
        assert (expected > 1) == (factor > 1)
        assert np.diff(np.log(sizes)).mean() == pytest.approx(np.log(expected), abs=0.04)


def test_several_outputs_break_the_formula_and_not_the_measured_ratio() -> None:
    """C independent copies of one regression have the edge of one, but C times the trace."""
    x = normal(12, 4)
    single = x[:, :, None] * x[:, None, :]
    hessians = torch.stack([torch.block_diag(h, h, h) for h in single])
    lr, h = edge(single, 1), hessians.mean(0)
    assert growth(hessians, 1, lr) == pytest.approx(1)
    assert stability_ratio(lr, 1, h.trace(), h.square().sum()) > 1.5  # "unstable", wrongly
    assert batch_stability_ratio(lr, h.trace(), hessians.square().sum((1, 2))) <= 1


def test_sharpness_ratio_is_1_where_momentum_gd_becomes_unstable() -> None:
    """Heavy ball on lambda w^2 / 2: spectral radius of the step of (w, b)."""
    top = torch.tensor(3.0, dtype=F64)
    for momentum in (0.0, 0.5, 0.9):
        for ratio, stable in ((0.999, True), (1.001, False)):
            lr = ratio * 2 * (1 + momentum) / top.item()
            assert sharpness_ratio(lr, momentum, top).item() == pytest.approx(ratio)
            step = np.array([[1 - lr * top.item(), -lr * momentum], [top.item(), momentum]])
            assert (np.abs(np.linalg.eigvals(step)).max() <= 1 + 1e-12) == stable


def test_columns_on_the_task() -> None:
    data, lr, batch_size = GaussianRegression(dim=10, samples=500).data(), 0.2, 3
    row = MEASUREMENT.function(snapshot(nn.Linear(10, 1, bias=False, dtype=F64), data, lr=lr, momentum=0.5,
                                        batch_size=batch_size))
    h = data.x_train.T @ data.x_train / 500
    assert row["sharpness_ratio"] == pytest.approx(lr * torch.linalg.eigvalsh(h)[-1].item() / 3, rel=1e-6)
    expected = stability_ratio(lr, batch_size, h.trace(), h.square().sum())
    assert row["stability_ratio"] == pytest.approx(expected.item(), rel=1e-6)  # the Krylov space is everything
    assert set(row) == {column.name for column in MEASUREMENT.columns}


@pytest.mark.parametrize("case", CASES)
def test_columns_from_their_parts(case: str) -> None:
    module, data = CASES[case]
    shot = snapshot(module, data, lr=0.2)
    row, found, drawn = MEASUREMENT.function(shot), shot.shared(traces), shot.shared(batches)
    assert row["sharpness_ratio"] == pytest.approx(0.1 * torch.linalg.eigvalsh(exact_hessian(module, data))[-1].item())
    tr, sq = found.trace.item(), found.square.item()
    assert row["stability_ratio"] == pytest.approx(0.1 * (tr / 4 + 0.75 * sq / tr))
    assert row["batch_stability_ratio"] == pytest.approx(0.1 * drawn.square.mean().item() / tr)


def test_nulls(monkeypatch: pytest.MonkeyPatch) -> None:
    minus = torch.tensor(-1.0, dtype=F64)
    assert stability_ratio(0.1, 4, minus, -minus).isnan() and batch_stability_ratio(0.1, minus, -minus).isnan()
    monkeypatch.setattr(batch_hessian, "LARGEST_BATCH", 3)
    row = MEASUREMENT.function(snapshot(nn.Linear(3, 1, dtype=F64), regression()))
    assert row["batch_stability_ratio"] is None
    assert row["stability_ratio"] is not None
