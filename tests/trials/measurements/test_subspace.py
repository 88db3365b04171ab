"""The gradient in the top space of the Hessian, and the overlap of two spaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from curvature_cases import CASES, F64, classification, exact_hessian, normal, sample_gradients, snapshot
from torch import Tensor, nn

from trials.measure import Measure
from trials.measurements import hessian
from trials.measurements.hessian import TOP
from trials.measurements.subspace import MEASUREMENT, fraction, overlap, top_space
from trials.spec import parse_trial
from trials.tasks.base import Data
from trials.trainer import train


def exact_top(module: nn.Module, data: Data) -> Tensor:
    """As many vectors as there are classes, five for a regression."""
    k = data.classes or TOP
    return torch.linalg.eigh(exact_hessian(module, data)).eigenvectors[:, -k:].T


@pytest.mark.parametrize("case", CASES)
def test_against_an_eigensolver(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessian, "TOLERANCE", 1e-8)
    module, data = CASES[case]
    shot, vectors = snapshot(module, data), exact_top(module, data)
    assert overlap(top_space(shot), vectors).item() == pytest.approx(1, abs=1e-9)
    g = sample_gradients(module, data).mean(0)
    expected = ((vectors @ g).norm() / g.norm()) ** 2
    assert 0.01 < expected < 0.99
    assert MEASUREMENT.function(shot)["gradient_top_fraction"] == pytest.approx(expected.item(), rel=1e-6)


def test_at_the_tolerance_of_the_columns() -> None:
    module, data = CASES["cross-entropy"]
    vectors = exact_top(module, data)
    assert overlap(top_space(snapshot(module, data)), vectors) > 0.999


@pytest.mark.parametrize(("classes", "k"), [(2, 2), (8, 8), (30, 20)])
def test_the_space_has_as_many_dimensions_as_there_are_classes(classes: int, k: int) -> None:
    """Of a linear model, whose Hessian has far more large eigenvalues."""
    module, data = nn.Linear(6, classes, dtype=F64), classification(n=60, inputs=6, classes=classes)
    row = MEASUREMENT.function(snapshot(module, data))
    vectors = torch.linalg.eigh(exact_hessian(module, data)).eigenvectors[:, -k:].T
    expected = fraction(sample_gradients(module, data).mean(0), vectors)
    assert row["gradient_top_k"] == k
    assert row["gradient_top_fraction"] == pytest.approx(expected.item(), abs=1e-3)


def test_overlap_of_planted_spaces() -> None:
    eye = torch.eye(8, dtype=F64)
    assert overlap(eye[:3], eye[:3]) == 1 and overlap(eye[:3], eye[3:6]) == 0
    turned = torch.linalg.qr(normal(3, 3)).Q @ eye[:3]
    assert overlap(eye[:3], turned).item() == pytest.approx(1)
    assert overlap(eye[:4], eye[3:7]).item() == pytest.approx(1 / 4)
    random = [torch.linalg.qr(normal(40, 5, seed=i)).Q.T for i in range(200)]
    overlaps = torch.stack([overlap(torch.eye(40, dtype=F64)[:5], space) for space in random])
    assert abs(overlaps.mean() - 5 / 40) < 4 * overlaps.std() / 200**0.5
    assert fraction(torch.arange(8, dtype=F64), eye[:3]).item() == pytest.approx(5 / 140)


def test_overlap_with_the_previous_snapshot_of_the_trial() -> None:
    """Linear regression, whose Hessian X^T X / n is given: its top space turns by a known angle from step to step."""
    eye, variances = torch.eye(9, dtype=F64), torch.tensor([9.0, 8, 7, 6, 5, 0.4, 0.3, 0.2, 0.1], dtype=F64)
    turned = eye.clone()
    turned[4], turned[5] = 0.6 * eye[4] + 0.8 * eye[5], 0.8 * eye[4] - 0.6 * eye[5]
    swapped = turned[[0, 1, 2, 5, 6, 3, 4, 7, 8]]

    def column(directions: Tensor, memory: dict[Any, Any]) -> float | None:
        x = 3 * variances.sqrt()[:, None] * directions
        data = Data(x, x[:, :1], x, x[:, :1], None)
        shot = replace(snapshot(nn.Linear(9, 1, bias=False, dtype=F64), data), kept=memory)
        found: float | None = MEASUREMENT.function(shot)["subspace_overlap"]
        return found

    memory: dict[Any, Any] = {}
    assert [column(space, memory) for space in (eye, eye, turned, swapped, eye)] == [
        None, *(pytest.approx(value, abs=1e-6) for value in (1, (4 + 0.6**2) / 5, 3 / 5, (3 + 0.8**2) / 5))]
    assert column(eye, {}) is None  # another trial


def test_a_trial_has_the_overlap_at_each_measured_step_but_the_first() -> None:
    trial = parse_trial({"task": {"name": "gaussian_regression", "dim": 8, "samples": 50}, "batch_size": 5,
                         "model": {"name": "mlp", "width": 4, "depth": 1}, "budget": {"steps": 20},
                         "optimizer": {"name": "sgd", "lr": 0.1}})
    steps = {row["step"]: row["subspace_overlap"] for row in train(trial, Measure(gradients="log", per_decade=1)).steps}
    assert list(steps) == [0, 1, 10, 20] and steps.pop(0) is None
    assert all(0 < value <= 1 for value in steps.values()) and min(steps.values()) < 0.99
