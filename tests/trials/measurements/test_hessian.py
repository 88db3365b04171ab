"""Hessian-vector products and extreme eigenvalues against Hessians written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curvature_cases import CASES, F64, classification, exact_hessian, mlp, normal, regression, snapshot
from torch import nn
from torch.nn import functional as F

from trials.evaluate import evaluate
from trials.measurements import objective as objectives
from trials.measurements.hessian import MEASUREMENT, TOP, extremes, find_extremes, hessian
from trials.measurements.objective import objective
from trials.tasks.gaussian_regression import GaussianRegression


@pytest.mark.parametrize("case", CASES)
def test_products(case: str) -> None:
    module, data = CASES[case]
    operator, exact = hessian(snapshot(module, data)), exact_hessian(module, data)
    for v in torch.eye(len(exact), dtype=F64):
        torch.testing.assert_close(operator(v), exact @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_columns(case: str) -> None:
    module, data = CASES[case]
    exact = np.linalg.eigvalsh(exact_hessian(module, data))[::-1]
    row = MEASUREMENT.function(snapshot(module, data))
    found = [row["hessian_max"], *(row[f"hessian_{i}"] for i in range(2, TOP + 1)), row["hessian_min"]]
    np.testing.assert_allclose(found, [*exact[:TOP], exact[-1]], rtol=1e-6)
    assert exact[-1] < -1e-3  # the smallest is no zero
    assert set(row) == {column.name for column in MEASUREMENT.columns}
    assert all(np.abs(exact - value).min() <= row["hessian_residual"] + 1e-9 for value in found)


@pytest.mark.parametrize("bottom", [-3.0, -1.1])  # the second is the slowest to converge
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-4])
def test_residual_bounds_the_error_at_any_tolerance(tolerance: float, bottom: float) -> None:
    size = 400
    bulk = torch.linspace(-1, 2, size - 6, dtype=F64)
    exact = torch.cat([torch.tensor([10.0, 9.0, 7.0, 6.0, 5.0, bottom], dtype=F64), bulk])
    q = torch.linalg.qr(normal(size, size)).Q
    a = q @ torch.diag(exact) @ q.T
    found = find_extremes(a.mv, [normal(size, seed=i) for i in range(TOP + 1)], tolerance)
    errors = [(exact - value).abs().min().item() for value in [*found.top_k, found.bottom]]
    assert max(errors) <= torch.maximum(found.residuals_k.max(), found.residual_bottom).item() <= 2 * tolerance * 10
    top = torch.linalg.vector_norm(found.vectors_kP @ a - found.top_k[:, None] * found.vectors_kP, dim=1)
    torch.testing.assert_close(found.residuals_k, top)
    torch.testing.assert_close(found.residual_bottom, found.space.residuals_M[-1])
    if tolerance < 0.1:
        np.testing.assert_allclose(found.top_k, [10, 9, 7, 6, 5], rtol=tolerance**2)
    torch.testing.assert_close(found.vectors_kP @ found.vectors_kP.T, torch.eye(TOP, dtype=F64), rtol=0, atol=1e-6)


def test_multiple_eigenvalues_are_counted_as_often_as_they_occur() -> None:
    """With C outputs a linear model's Hessian is I_C (x) X^T X / n: every eigenvalue C times."""
    data = regression(n=50, inputs=8, outputs=3)
    exact = np.linalg.eigvalsh(data.x_train.T @ data.x_train / 50)[::-1]
    module = nn.Linear(8, 3, bias=False, dtype=F64)
    found = extremes(snapshot(module, data))
    np.testing.assert_allclose(found.top_k, exact[[0, 0, 0, 1, 1]], rtol=1e-6)
    np.testing.assert_allclose(found.bottom, exact[-1], rtol=1e-6)
    images = torch.stack([hessian(snapshot(module, data))(v) for v in found.vectors_kP])
    torch.testing.assert_close(images, found.top_k[:, None] * found.vectors_kP, rtol=0, atol=1e-3)


def test_linear_regression_of_the_task() -> None:
    data = GaussianRegression(dim=30, samples=400).data()
    row = MEASUREMENT.function(snapshot(nn.Linear(30, 1, bias=False, dtype=F64), data))
    exact = np.linalg.eigvalsh(data.x_train.T @ data.x_train / 400)[::-1]
    np.testing.assert_allclose([row["hessian_max"], row["hessian_min"]], [exact[0], exact[-1]], rtol=1e-6)


def test_fewer_parameters_than_columns_are_nulls() -> None:
    data = regression(inputs=2)
    row = MEASUREMENT.function(snapshot(nn.Linear(2, 1, bias=False, dtype=F64), data))
    exact = np.linalg.eigvalsh(data.x_train.T @ data.x_train / 20)
    np.testing.assert_allclose([row["hessian_max"], row["hessian_2"], row["hessian_min"]], exact[[1, 0, 0]], rtol=1e-9)
    assert [row[f"hessian_{i}"] for i in range(3, TOP + 1)] == [None, None, None]


def test_non_finite_parameters_are_nulls() -> None:
    module = mlp(3, 4, 3)
    module[0].weight.data[0, 0] = torch.nan
    assert set(MEASUREMENT.function(snapshot(module, classification())).values()) == {None}


def test_the_probe_set_is_all_of_a_small_training_set_and_a_fixed_part_of_a_large_one(
        monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = CASES["cross-entropy"]
    assert sorted(objective(snapshot(module, data)).x_n.tolist()) == sorted(data.x_train.tolist())
    monkeypatch.setattr(objectives, "PROBE", 7)
    first, second = (objective(snapshot(module, data, seed=seed, step=seed)) for seed in (0, 1))
    assert len(first.x_n) == 7
    assert torch.equal(first.x_n, second.x_n) and torch.equal(first.target_nC, second.target_nC)


def test_the_loss_is_the_training_loss_and_nothing_is_changed() -> None:
    """Batch norm with statistics of its own, dropout, float32, and an attention kernel: as in ``evaluate``."""
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.norm, self.drop = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
            self.act, self.fc2 = nn.GELU(), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.drop(self.norm(self.fc1(x))).reshape(-1, 1, 2, 4)
            return self.fc2(self.act(F.scaled_dot_product_attention(h, h, h)).mean((1, 2)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Model().train()
    module.norm.running_mean += 0.3
    data = classification().to("cpu", torch.float32)
    shot = snapshot(module, data)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    of = objective(shot)
    loss = of.loss(of.theta_P)
    assert loss.dtype == F64
    assert loss.item() == pytest.approx(evaluate(shot.network, shot.params, shot.buffers, data)["train_loss"], rel=1e-6)
    operator, v = hessian(shot), normal(len(of.theta_P))
    h = 1e-5
    slopes = []
    for theta in (of.theta_P + h * v, of.theta_P - h * v):
        leaf = theta.requires_grad_()
        slopes.append(torch.autograd.grad(of.loss(leaf), leaf)[0])
    torch.testing.assert_close(operator(v), (slopes[0] - slopes[1]) / (2 * h), rtol=1e-5, atol=1e-7)
    assert module.training and module.norm.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
