from __future__ import annotations

import math

import pytest
import torch
from planted import classes, mlp, snapshot_of
from sklearn.metrics import log_loss

from trials.evaluate import evaluate
from trials.measurements import predictions


def logits(p: list[list[float]]) -> torch.Tensor:
    return torch.tensor(p, dtype=torch.float64).log()


def measured(output: torch.Tensor, labels: list[int]) -> dict[str, float]:
    return {name: float(value) for name, value in predictions.scores(output, torch.tensor(labels)).items()}


def test_by_hand() -> None:
    found = measured(logits([[0.9, 0.1], [0.88, 0.12], [0.6, 0.4], [0.3, 0.7]]), [0, 1, 0, 1])
    # 0.9 and 0.88 share the bin (13/15, 14/15]: accuracy 1/2, confidence 0.89; 0.6 and 0.7 have bins of their own
    assert found["test_ece"] == pytest.approx((2 * abs(0.5 - 0.89) + 0.4 + 0.3) / 4)
    assert found["test_nll"] == pytest.approx(-(math.log(0.9) + math.log(0.12) + math.log(0.6) + math.log(0.7)) / 4)
    assert found["test_brier"] == pytest.approx(2 * (0.1**2 + 0.88**2 + 0.4**2 + 0.3**2) / 4)


def test_bins_are_closed_on_the_right() -> None:
    edge = logits([[0.2] * 5, [0.25] + [0.1875] * 4])  # 0.2 = 3/15 is in the third bin, 0.25 in the fourth
    assert measured(edge, [0, 1])["test_ece"] == pytest.approx((0.8 + 0.25) / 2)
    split = logits([[0.59, 0.41], [0.61, 0.39]])  # either side of 9/15: the errors do not cancel
    assert measured(split, [0, 1])["test_ece"] == pytest.approx((0.41 + 0.61) / 2)


def test_extremes_and_calibration() -> None:
    sure = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    assert measured(sure, [0, 1]) == {"test_nll": 0.0, "test_brier": 0.0, "test_ece": 0.0}
    assert measured(sure, [1, 0]) == {"test_nll": 1000.0, "test_brier": 2.0, "test_ece": 1.0}
    assert measured(torch.zeros(10, 5), [0, 1, 2, 3, 4] * 2)["test_ece"] == pytest.approx(0.0)  # 0.2 of 0.2


def test_against_sklearn_and_the_brute_force_bins() -> None:
    output = 3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(500) % 4
    found, p = measured(output, labels.tolist()), torch.softmax(output.double(), 1)
    assert found["test_nll"] == pytest.approx(log_loss(labels, p.numpy()), rel=1e-6)
    ece = 0.0
    for b in range(15):
        inside = [i for i in range(500) if b / 15 < float(p[i].max()) <= (b + 1) / 15]
        right = sum(int(p[i].argmax() == labels[i]) for i in inside)
        ece += abs(right - sum(float(p[i].max()) for i in inside)) / 500
    assert found["test_ece"] == pytest.approx(ece, rel=1e-9)


def test_on_the_test_set_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "CHUNK", 7)
    snapshot = snapshot_of(mlp(6, 5, 3), classes())
    found = predictions.MEASUREMENT.function(snapshot)
    found_loss = evaluate(snapshot.network, snapshot.params, {}, snapshot.data)["test_loss"]
    assert found["test_nll"] == pytest.approx(found_loss)
