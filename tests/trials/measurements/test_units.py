from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from planted import layer_of, randn

from trials.measurements import units


def test_planted_dead_and_dormant_units() -> None:
    activation = randn(200, 10).abs() + 0.5
    activation[:, :3] = 0.0
    activation[:, 3] = 0.0
    activation[7, 3] = 1.0  # active once: dormant, not dead
    found = units.metrics(layer_of(activation))
    assert float(found["dead_units"]) == pytest.approx(0.3)
    assert float(found["dormant_units"]) == pytest.approx(0.4)
    assert float(found["activation_sparsity"]) == pytest.approx((3 * 200 + 199) / 2000)


def test_the_threshold_of_dormancy_is_relative_to_the_layer() -> None:
    size = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    for score, dormant in ((units.TAU * 0.99, 0.25), (units.TAU * 1.01, 0.0)):
        size[3] = score * 3.0 / (4.0 - score)  # its share of the layer's mean is then exactly `score`
        found = units.metrics(layer_of(size * torch.ones(5, 1, dtype=torch.float64)))
        assert float(found["dormant_units"]) == dormant and float(found["dead_units"]) == 0.0


def test_units_of_an_image_are_channels() -> None:
    activation = randn(6, 4, 3, 3).abs()
    activation[:, 2] = 0.0
    activation[:, 1, 0, 0] = 0.0  # a dead pixel is no dead channel
    assert float(units.metrics(layer_of(activation))["dead_units"]) == 0.25


def test_negative_activations_are_active() -> None:
    assert float(units.metrics(layer_of(-randn(20, 4).abs()))["dead_units"]) == 0.0


def test_massive_ratio() -> None:
    activation = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -600.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    found = units.metrics(layer_of(activation, preactivation=torch.arange(-4.0, 5.0).double().reshape(3, 3)))
    assert float(found["activation_massive_ratio"]) == 600.0 / 2.0
    assert float(found["preactivation_massive_ratio"]) == 4.0 / 2.0
    assert not math.isfinite(float(units.massive_ratio(torch.tensor([0.0, 0.0, 1.0]))))


def test_kurtosis_is_scipys() -> None:
    x = torch.cat([randn(300, 4), randn(300, 3, seed=1).pow(3)], 1)
    expected = scipy.stats.kurtosis(x.numpy(), axis=0)
    assert float(units.kurtosis(x)) == pytest.approx(expected.mean(), rel=1e-10)
    constant = torch.cat([x, 0.1 + 1e-9 * randn(300, 2, seed=2).pow(3)], 1)  # up to rounding: left out
    assert float(units.kurtosis(constant)) == pytest.approx(expected.mean(), rel=1e-10)
    assert float(units.kurtosis(torch.tensor([[-1.0], [1.0]]))) == pytest.approx(-2.0)
    assert math.isnan(float(units.kurtosis(torch.ones(10, 3))))
    found = units.metrics(layer_of(x.relu(), preactivation=x))
    assert float(found["preactivation_kurtosis"]) == pytest.approx(expected.mean(), rel=1e-10)
