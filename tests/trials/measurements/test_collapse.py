from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted import classes, mlp, randn, snapshot_of
from torch import Tensor, nn

from trials.measurements import collapse
from trials.measurements.activations import activations

LABELS = torch.arange(60) % 4


def simplex(k: int, d: int) -> Tensor:
    """(k, d) rows of a simplex equiangular tight frame, turned."""
    turn, _ = torch.linalg.qr(randn(d, d))
    return (torch.eye(k, dtype=torch.float64) - 1.0 / k) @ turn[:k]


def measured(features: Tensor, labels: Tensor, predicted: Tensor, weight: Tensor | None) -> dict[str, float]:
    return {name: float(value) for name, value in collapse.collapse(features, labels, predicted, weight).items()}


def test_exact_collapse() -> None:
    frame = simplex(4, 7)
    found = measured(5.0 + 2.0 * frame[LABELS], LABELS, LABELS, 0.3 * frame)
    assert found == pytest.approx({"nc1": 0.0, "nc2_equinorm": 0.0, "nc2_equiangular": 0.0, "nc2_maximal_angle": 0.0,
                                   "nc3": 0.0, "nc4": 1.0}, abs=1e-12)


def test_each_number_sees_its_own_failure() -> None:
    frame = simplex(4, 7)
    unequal = frame * torch.tensor([1.0, 1.0, 1.0, 3.0], dtype=torch.float64)[:, None]
    found = measured(unequal[LABELS], LABELS, LABELS, frame)
    assert found["nc1"] == pytest.approx(0.0, abs=1e-12)
    assert min(found["nc2_equinorm"], found["nc2_equiangular"], found["nc2_maximal_angle"], found["nc3"]) > 0.01
    orthogonal = torch.eye(4, dtype=torch.float64)  # its centred rows are a simplex
    assert measured(orthogonal[LABELS], LABELS, LABELS, orthogonal)["nc2_maximal_angle"] == pytest.approx(0, abs=1e-12)
    assert measured(frame[LABELS], LABELS, LABELS, -frame)["nc3"] == pytest.approx(4.0)  # opposite
    wrong = LABELS.clone()
    wrong[:15] = (wrong[:15] + 1) % 4
    assert measured(frame[LABELS], LABELS, wrong, None)["nc4"] == 0.75


def test_against_the_definitions_unbalanced() -> None:
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 5)
    features = randn(35, 4) + 3.0 * randn(3, 4, seed=1)[labels]
    weight, predicted = randn(3, 4, seed=2), torch.arange(35) % 3
    x, y = features.numpy(), labels.numpy()
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    centred = means - means.mean(0)
    within = np.mean([np.cov(x[y == c].T, bias=True) for c in range(3)], axis=0)
    between = centred.T @ centred / 3
    norms = np.linalg.norm(centred, axis=1)
    cosines = np.array([centred[a] @ centred[b] / norms[a] / norms[b] for a in range(3) for b in range(3) if a != b])
    w, m = weight.numpy() / np.linalg.norm(weight), centred / np.linalg.norm(centred)
    nearest = np.argmin([[np.linalg.norm(row - mean) for mean in means] for row in x], axis=1)
    assert measured(features, labels, predicted, weight) == pytest.approx({
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 3,
        "nc2_equinorm": norms.std() / norms.mean(), "nc2_equiangular": cosines.std(),
        "nc2_maximal_angle": np.abs(cosines + 0.5).mean(),
        "nc3": np.sum((w - m) ** 2), "nc4": np.mean(nearest == predicted.numpy())}, rel=1e-9)


def test_null_where_undefined() -> None:
    frame = simplex(4, 7)
    some = LABELS[LABELS < 3]  # a class is missing: no self-duality, but the rest
    found = measured(frame[some], some, some, frame)
    assert math.isnan(found["nc3"]) and found["nc4"] == 1.0 and found["nc1"] == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(measured(frame[LABELS], LABELS, LABELS, None)["nc3"])
    assert math.isnan(measured(frame[LABELS], LABELS, LABELS, randn(4, 9))["nc3"])
    for features, labels in ((frame[LABELS], LABELS * 0), (torch.full((60, 7), 0.1, dtype=torch.float64), LABELS)):
        assert all(math.isnan(value) for value in measured(features, labels, labels, frame).values())


def test_of_the_last_hidden_layer_only_with_the_last_weight() -> None:
    snapshot = snapshot_of(mlp(6, 5, 4, 3), classes())
    found = collapse.MEASUREMENT.function(snapshot)
    assert list(found) == ["act2"]
    layer, output = snapshot.shared(activations).layers[1], snapshot.shared(activations).output_NC
    assert layer.labels_N is not None
    expected = measured(layer.activation_N, layer.labels_N, output.argmax(1), snapshot.params["fc3.weight"])
    assert found["act2"] == expected


def test_the_last_weight() -> None:
    assert collapse.last_weight(mlp(6, 5, 3)) == "fc2.weight"
    assert collapse.last_weight(nn.Linear(2, 2)) == "weight"
    assert collapse.last_weight(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1))) == "0.weight"
    assert collapse.last_weight(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))) is None
    assert collapse.last_weight(nn.ReLU()) is None
