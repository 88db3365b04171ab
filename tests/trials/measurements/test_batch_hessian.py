"""Hessians of batches, one batch at a time, against Hessians written out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from curvature_cases import CASES, F64, exact_hessian, regression, sample_gradients, snapshot
from scipy import stats
from torch import nn

from trials.measurements import batch_hessian
from trials.measurements.batch_hessian import DRAWS, MEASUREMENT, batches, draws
from trials.tasks.base import Data
from trials.tasks.gaussian_regression import GaussianRegression


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_draw(case: str, batch_size: int) -> None:
    module, data = CASES[case]
    shot = snapshot(module, data, batch_size=batch_size)
    found = batches(shot)
    assert found is not None
    tops, sharpness = [], []
    for i, batch in enumerate(draws(shot)):
        rows = [next(k for k, x in enumerate(data.x_train) if torch.equal(x, drawn)) for drawn in batch.x_n]
        assert len(set(rows)) == batch_size
        part = Data(data.x_train[rows], data.y_train[rows], data.x_test, data.y_test, data.classes)
        h, g = exact_hessian(module, part), sample_gradients(module, part).mean(0)
        tops.append(torch.linalg.eigvalsh(h)[-1])
        sharpness.append(g @ h @ g / (g @ g))
        torch.testing.assert_close(found.top[i], tops[-1], rtol=2e-3, atol=0)
        torch.testing.assert_close(found.sharpness[i], sharpness[-1], rtol=1e-9, atol=1e-12)
    assert i == DRAWS - 1
    row = MEASUREMENT.function(shot)
    assert row == pytest.approx({
        "batch_hessian_max": torch.stack(tops).mean().item(), "batch_hessian_max_sd": torch.stack(tops).std().item(),
        "batch_sharpness": torch.stack(sharpness).mean().item(),
        "batch_sharpness_error": torch.stack(sharpness).std().item() / DRAWS**0.5}, rel=5e-3)
    assert set(row) == {column.name for column in MEASUREMENT.columns}


def test_squares_are_unbiased() -> None:
    """The mean over many moments against the mean over all samples, B = 1; linear regression, H_i = x_i x_i^T."""
    data = regression(n=12, inputs=5)
    module = nn.Linear(5, 1, bias=False, dtype=F64)
    squares = torch.cat([batches(snapshot(module, data, batch_size=1, step=step)).square for step in range(100)])
    exact = data.x_train.square().sum(1).square()
    assert (squares[:, None] - exact).abs().min(1).values.max() < 1e-9  # that of its sample: one step is all
    assert abs(squares.mean() - exact.mean()) < 4 * exact.std() / len(squares) ** 0.5
    assert squares.std().item() == pytest.approx(exact.std(correction=0).item(), rel=0.1)  # batches differ, no more


def test_squares_of_a_wide_hessian_are_unbiased() -> None:
    """One full batch: what varies is the random probe outside a Krylov space that is far from complete."""
    data = regression(n=200, inputs=120)
    module = nn.Linear(120, 1, bias=False, dtype=F64)
    squares = torch.cat([batches(snapshot(module, data, batch_size=200, step=step)).square for step in range(12)])
    exact = (data.x_train.T @ data.x_train / 200).square().sum().item()
    assert squares.std().item() > 0.001 * exact
    assert abs(squares.mean().item() - exact) < 4 * squares.std().item() / len(squares) ** 0.5


def test_all_batches_are_equally_likely() -> None:
    data = regression(n=5)
    counts: Counter[tuple[int, ...]] = Counter()
    for step in range(200):
        for batch in draws(snapshot(nn.Linear(3, 1, dtype=F64), data, batch_size=2, step=step)):
            counts[tuple(sorted(data.x_train.tolist().index(x) for x in batch.x_n.tolist()))] += 1
    assert set(counts) == set(combinations(range(5), 2))
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_the_full_batch_has_no_spread() -> None:
    module, data = CASES["cross-entropy"]
    row = MEASUREMENT.function(snapshot(module, data, batch_size=20))
    exact = torch.linalg.eigvalsh(exact_hessian(module, data))[-1].item()
    assert row["batch_hessian_max"] == pytest.approx(exact, rel=1e-3)
    assert row["batch_hessian_max_sd"] < 2e-3 * row["batch_hessian_max"]
    assert row["batch_sharpness_error"] < 1e-12


def test_fresh_batches_are_drawn_anew() -> None:
    data = GaussianRegression(dim=4, samples=10, fresh=True).data()
    shot = snapshot(nn.Linear(4, 1, dtype=F64), data, batch_size=3)
    drawn = torch.cat([batch.x_n for batch in draws(shot)])
    assert drawn.shape == (3 * DRAWS, 4)
    assert len({tuple(x) for x in [*drawn.tolist(), *data.x_train.tolist()]}) == 3 * DRAWS + 10


def test_where_there_is_no_number_there_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = CASES["squared loss"]
    fitted = replace(data, y_train=module(data.x_train).detach())
    row = MEASUREMENT.function(snapshot(module, fitted))
    assert row["batch_sharpness"] is None and row["batch_sharpness_error"] is None
    assert row["batch_hessian_max"] > 0
    monkeypatch.setattr(batch_hessian, "LARGEST_BATCH", 3)
    assert set(MEASUREMENT.function(snapshot(module, data, batch_size=4)).values()) == {None}
