from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted import layer_of, mlp, randn, regression, snapshot_of
from torch import Tensor, nn

from trials.measurements import linearity


def measured(previous: Tensor, activation: Tensor) -> dict[str, float]:
    found = linearity.metrics(layer_of(activation, previous=previous))
    return {name: float(value) for name, value in found.items()}


def test_against_least_squares() -> None:
    x = randn(60, 5) + 3.0
    y = torch.relu(x @ randn(5, 8, seed=1))
    left, right = ((z - z.mean(0)) / (z - z.mean(0)).norm() for z in (x, y))
    best = np.linalg.lstsq(left.numpy(), right.numpy(), rcond=None)[0]
    score = 1 - np.sum((left.numpy() @ best - right.numpy()) ** 2)
    found = measured(x, y)
    assert found["linearity"] == pytest.approx(score, abs=1e-10)
    assert found["linearity_adjusted"] == pytest.approx(1 - (1 - score) * 59 / 54, abs=1e-10)
    assert 0.3 < score < 0.99


def test_a_linear_map_scores_one() -> None:
    x = randn(60, 5)
    for previous in (x, torch.cat([x, x @ randn(5, 4, seed=2)], 1)):  # the second of deficient rank
        found = measured(previous, 7.0 + x @ randn(5, 8, seed=1))
        assert found["linearity"] == pytest.approx(1.0, abs=1e-9)
        assert found["linearity_adjusted"] == pytest.approx(1.0, abs=1e-9)


def test_unrelated_layers_score_by_chance_only() -> None:
    found = measured(randn(400, 200), randn(400, 300, seed=1))
    assert found["linearity"] == pytest.approx(200 / 399, abs=0.01)
    assert found["linearity_adjusted"] == pytest.approx(0.0, abs=0.02)


def test_null_where_any_layer_would_fit() -> None:
    assert math.isnan(measured(randn(20, 50), randn(20, 3, seed=1))["linearity"])
    assert math.isnan(measured(randn(20, 19), randn(20, 3, seed=1))["linearity"])
    assert not math.isnan(measured(randn(20, 18), randn(20, 3, seed=1))["linearity"])
    assert math.isnan(measured(torch.ones(20, 3, dtype=torch.float64), randn(20, 3))["linearity"])


def test_in_a_network_each_layer_is_compared_with_the_one_before() -> None:
    snapshot = snapshot_of(mlp(6, 5, 4, 1, activation=nn.Identity), regression())
    assert linearity.MEASUREMENT.function(snapshot) == {}  # the identity is no nonlinearity
    snapshot = snapshot_of(mlp(6, 5, 4, 1, activation=nn.Hardtanh), regression())
    tiny = {name: 1e-3 * value for name, value in snapshot.params.items()}
    found = linearity.MEASUREMENT.function(snapshot_of(snapshot.network.module, regression(), tiny))
    assert [found[name]["linearity"] for name in ("act1", "act2")] == pytest.approx([1.0, 1.0], abs=1e-9)
