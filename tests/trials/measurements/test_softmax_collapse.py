"""Planted logits on both sides of where the softmax rounds."""

from __future__ import annotations

import pytest
import torch
from curvature_cases import regression, snapshot
from torch import nn

from trials.measurements import softmax_collapse
from trials.measurements.softmax_collapse import MEASUREMENT
from trials.tasks.base import Data


def planted(gaps: list[float], labels: list[int], dtype: torch.dtype) -> Data:
    """The inputs are the logits (gap, 0)."""
    x = torch.tensor([[gap, 0.0] for gap in gaps], dtype=dtype)
    y = torch.tensor(labels)
    return Data(x, y, x[:0], y[:0], 2)


def identity(dtype: torch.dtype) -> nn.Module:
    module = nn.Linear(2, 2, bias=False, dtype=dtype)
    module.weight.data = torch.eye(2, dtype=dtype)
    return module


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 24), (torch.float64, 53)])
def test_the_gap_at_which_1_plus_its_exponential_is_1(dtype: torch.dtype, bits: int) -> None:
    """1 + e^-gap rounds to 1 below 2^-24 (2^-53); e^-gap itself underflows much later."""
    edge = bits * 0.6931471805599453
    gaps = [1.0, edge - 0.5, edge + 0.5, 60.0, 1000.0]
    row = MEASUREMENT.function(snapshot(identity(dtype), planted(gaps, [0] * 5, dtype)))
    assert row == pytest.approx({"softmax_collapse": 3 / 5, "zero_gradient": 1 / 5})


def test_a_confident_mistake_has_a_gradient() -> None:
    row = MEASUREMENT.function(snapshot(identity(torch.float32), planted([1000.0] * 4, [0, 1, 1, 1], torch.float32)))
    assert row == pytest.approx({"softmax_collapse": 1 / 4, "zero_gradient": 1 / 4})


def test_all_of_the_training_set_is_looked_at_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax_collapse, "CHUNK", 4)
    data = planted([1000.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1000.0, 1000.0, 30.0, 30.0], [0] * 10, torch.float32)
    row = MEASUREMENT.function(snapshot(identity(torch.float32), data))
    assert row == pytest.approx({"softmax_collapse": 0.5, "zero_gradient": 0.3})


def test_regression_has_no_softmax() -> None:
    row = MEASUREMENT.function(snapshot(nn.Linear(3, 1, dtype=torch.float64), regression()))
    assert row == {"softmax_collapse": None, "zero_gradient": None}
