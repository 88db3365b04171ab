"""The loss of guessing: that of the best constant output, which no constant output falls below."""

from __future__ import annotations

import math

import pytest
import torch

from trials.evaluate import chance_loss
from trials.measure import Measure
from trials.spec import parse_trial
from trials.tasks.base import Data
from trials.trainer import train


def data(y: torch.Tensor, classes: int | None) -> Data:
    return Data(torch.zeros(len(y), 2), y, torch.zeros(0, 2), y[:0], classes)


def test_the_entropy_of_the_shares_of_the_classes() -> None:
    assert chance_loss(data(torch.arange(40) % 4, 4)) == pytest.approx(math.log(4))
    shares = torch.tensor([0, 0, 0, 1])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert chance_loss(data(shares, 3)) == pytest.approx(expected)  # a class that never comes costs nothing
    assert chance_loss(data(torch.arange(4) % 2, 2), shares) == pytest.approx(expected)  # labels that are trained on


def test_half_the_variance_of_the_targets() -> None:
    y = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    best = chance_loss(data(y, None))
    assert best == pytest.approx(float(0.5 * (y - y.mean(0)).square().sum(1).mean()), rel=1e-5)
    assert best < float(0.5 * (y - y.mean(0) - 0.1).square().sum(1).mean())


def test_a_trial_has_it_and_one_that_is_hardly_trained_is_near_it() -> None:
    trial = parse_trial({"task": "digits", "model": {"name": "mlp", "width": 8}, "budget": {"steps": 1},
                         "optimizer": {"name": "sgd", "lr": 1e-9}})
    row = train(trial, Measure(weights="none", changes="none", eigenvalues="none")).trial
    assert row["chance_loss"] == pytest.approx(math.log(10), rel=1e-3)
    assert row["train_loss"] >= 0.99 * row["chance_loss"]
