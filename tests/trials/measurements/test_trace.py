"""Trace and Frobenius norm: unbiased, with standard errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curvature_cases import CASES, F64, exact_hessian, normal, snapshot
from scipy import stats
from torch import nn

from trials.measurements import hessian
from trials.measurements.lanczos import lanczos
from trials.measurements.trace import MEASUREMENT, PROBES, WHOLE, estimate, layer_blocks, samples
from trials.streams import Stream
from trials.tasks.gaussian_regression import GaussianRegression


@pytest.mark.parametrize("case", CASES)
def test_columns(case: str) -> None:
    module, data = CASES[case]
    exact, row = exact_hessian(module, data), MEASUREMENT.function(snapshot(module, data))
    limit = stats.t.ppf(0.999, PROBES - 1)
    assert abs(row["hessian_trace"] - exact.trace().item()) < limit * row["hessian_trace_error"]
    frobenius = torch.linalg.matrix_norm(exact).item()
    assert abs(row["hessian_frobenius"] - frobenius) < limit * row["hessian_frobenius_error"]
    assert set(row) == {column.name for column in MEASUREMENT.columns}


@pytest.mark.parametrize("case", CASES)
def test_exact_where_the_krylov_space_is_everything(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessian, "TOLERANCE", 0.0)  # so that the search goes on to the end
    module, data = CASES[case]
    exact, row = exact_hessian(module, data), MEASUREMENT.function(snapshot(module, data))
    assert row["hessian_trace"] == pytest.approx(exact.trace().item(), rel=1e-9)
    assert row["hessian_frobenius"] == pytest.approx(torch.linalg.matrix_norm(exact).item(), rel=1e-9)
    assert row["hessian_trace_error"] < 1e-9 and row["hessian_frobenius_error"] < 1e-9


def blocky(size: int = 40) -> torch.Tensor:
    """An indefinite matrix with three large eigenvalues."""
    q = torch.linalg.qr(normal(size, size)).Q
    spectrum = torch.cat([torch.tensor([20.0, 10.0, -8.0], dtype=F64), normal(size - 3, seed=2)])
    return q @ torch.diag(spectrum) @ q.T


@pytest.mark.parametrize("blocks", [WHOLE, (slice(0, 15), slice(15, 30), slice(30, 40))])
def test_unbiased_and_the_standard_errors_cover(blocks: tuple[slice, ...]) -> None:
    a = blocky()
    space = lanczos(a.mv, normal(40, seed=3), 6)
    trials, trace, square = 400, a.trace().item(), a.square().sum().item()
    found = [estimate(a.mv, space, Stream.of(seed, "trace"), blocks) for seed in range(trials)]
    limit = stats.t.ppf(0.975, PROBES - 1)
    for mean, error, truth in (("trace", "trace_error", trace), ("square", "square_error", square),
                               ("frobenius", "frobenius_error", square**0.5)):
        means = np.array([getattr(one, mean).item() for one in found])
        errors = np.array([getattr(one, error).item() for one in found])
        if mean != "frobenius":  # the root of an unbiased square is biased, by less than its error
            assert abs(means.mean() - truth) < 4 * means.std() / trials**0.5
        covered = np.mean(np.abs(means - truth) < limit * errors)
        assert 0.92 <= covered <= 0.98
        assert np.mean(errors**2) == pytest.approx(means.var(), rel=0.35)


def test_neither_krylov_space_nor_blocks_are_idle() -> None:
    """Each takes out its part of the variance 2 (norm(B)_F^2 - norm(diag B)^2), B what it leaves."""
    a = blocky()
    blocks = (slice(0, 20), slice(20, 40))
    for steps in (1, 6):
        space = lanczos(a.mv, normal(40, seed=3), steps)
        r = torch.eye(40, dtype=F64) - space.basis_MP.T @ space.basis_MP
        rest = r @ a @ r
        for chosen in (WHOLE, blocks):
            inside = torch.zeros_like(rest)
            for block in chosen:
                inside[block, block] = rest[block, block]
            variance = 2 * (inside.square().sum() - inside.diagonal().square().sum()).item()
            traces, _ = samples(a.mv, space, Stream.of(1, "trace"), 3000, chosen)
            assert traces.var().item() == pytest.approx(variance, rel=0.15)


def test_linear_regression_with_more_parameters_than_steps() -> None:
    """H = X^T X / n, known; 300 parameters are three times the steps that Lanczos may take."""
    data = GaussianRegression(dim=300, samples=500).data()
    row = MEASUREMENT.function(snapshot(nn.Linear(300, 1, bias=False, dtype=F64), data))
    exact = data.x_train.T @ data.x_train / 500
    limit = stats.t.ppf(0.999, PROBES - 1)
    assert 0 < row["hessian_trace_error"] < 0.05 * row["hessian_trace"]
    assert abs(row["hessian_trace"] - exact.trace().item()) < limit * row["hessian_trace_error"]
    frobenius = torch.linalg.matrix_norm(exact).item()
    assert abs(row["hessian_frobenius"] - frobenius) < limit * row["hessian_frobenius_error"]


def test_layers_are_dealt_out_to_blocks_in_order() -> None:
    layers = {f"fc{i}.{kind}": torch.Size([i if kind == "weight" else 1])
              for i in range(1, 7) for kind in ("weight", "bias")}
    assert layer_blocks(layers) == [slice(0, 2), slice(2, 9), slice(9, 14), slice(14, 27)]
    assert layer_blocks({"plus": torch.Size([1, 3]), "minus": torch.Size([1, 3])}) == [slice(0, 6)]
