"""Which activations are collected, under which names, on which samples; and null where nothing is defined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from planted import classes, layer_of, mlp, randn, regression, snapshot_of
from torch import nn

from trials.measurements import (
    activations,
    collapse,
    diffusion,
    dimension,
    isotropy,
    kernel,
    linearity,
    predictions,
    probe,
    tangent,
    units,
)
from trials.measurements.base import Measurement, Snapshot
from trials.tasks.base import Data

MEASUREMENTS: list[Measurement] = [module.MEASUREMENT for module in (
    collapse, diffusion, dimension, isotropy, kernel, linearity, predictions, tangent, units)]


def rows(measurement: Measurement, snapshot: Snapshot) -> list[Mapping[str, Any]]:
    found = measurement.function(snapshot)
    return list(found.values()) if measurement.table == "layers" else [found]


class TwoSites(nn.Module):
    """One ReLU, in place, reached twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(6, 5), nn.Linear(5, 3), nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.second(self.drop(self.relu(self.first(x)))))


def test_layers_hold_input_and_output_of_each_nonlinearity() -> None:
    module, data = mlp(6, 5, 4, 3), classes()
    snapshot = snapshot_of(module, data)
    found = snapshot.shared(activations.activations)
    x, _ = probe.probe(data, 1024)
    before1 = module.fc1(x)
    before2 = module.fc2(before1.relu())
    assert [layer.name for layer in found.layers] == ["act1", "act2"]
    for layer, before in zip(found.layers, (before1, before2), strict=True):
        torch.testing.assert_close(layer.preactivation_N, before)
        torch.testing.assert_close(layer.features.points_ND, before.relu())
    torch.testing.assert_close(found.layers[0].previous.points_ND, x)
    assert found.layers[1].previous is found.layers[0].features
    torch.testing.assert_close(found.output_NC, module.fc3(before2.relu()))
    assert snapshot.shared(activations.activations) is found


def test_a_module_reached_twice_works_in_place_and_is_left_as_it_was() -> None:
    module = TwoSites()
    snapshot = snapshot_of(module, classes())
    hooks = len(module.relu._forward_hooks)
    first, second = snapshot.shared(activations.activations).layers
    x, _ = probe.probe(snapshot.data, 1024)
    assert (first.name, second.name) == ("relu", "relu#2")
    torch.testing.assert_close(first.preactivation_N, module.first(x))  # not overwritten
    assert bool((first.preactivation_N < 0).any()) and bool((first.activation_N >= 0).all())
    torch.testing.assert_close(second.preactivation_N, module.second(module.first(x).relu()))  # without dropout
    assert module.training and module.drop.training
    assert len(module.relu._forward_hooks) == hooks and not module.relu._forward_pre_hooks


def test_the_probe_set_is_bounded_and_the_same_for_all() -> None:
    data = classes(n=50)
    x, y = probe.probe(data, 20)
    assert len(x) == len(y) == 20 and len(torch.unique(x, dim=0)) == 20
    longer, _ = probe.probe(data, 1000)
    assert len(longer) == 50 and torch.equal(longer[:20], x)
    index = [int((data.x_train == row).all(1).nonzero()) for row in x]
    assert torch.equal(data.y_train[index], y)


def test_wide_models_get_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "ENTRIES", 9 * 10)
    found = snapshot_of(mlp(6, 5, 4, 3), classes()).shared(activations.activations)
    assert len(found.layers[0].activation_N) == 10


def test_convolutions_are_flattened_and_have_channels_as_units() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    data = Data(randn(30, 1, 3, 3), torch.arange(30) % 2, randn(4, 1, 3, 3), torch.arange(4) % 2, 2)
    (layer,) = snapshot_of(module, data).shared(activations.activations).layers
    assert layer.activation_N.shape == (30, 3, 2, 2) and layer.features.points_ND.shape == (30, 12)
    torch.testing.assert_close(units.per_unit(layer.activation_N)[:, 1], layer.activation_N[:, 1].flatten())


def test_a_sequence_that_does_not_begin_with_samples_is_left_out() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(6, 3), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.fc(x).T).T
    assert snapshot_of(Turned(), classes()).shared(activations.activations).layers == ()


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda m: m.function.__module__ + m.columns[0].name)
def test_every_measurement_gives_its_columns_on_an_ordinary_model(measurement: Measurement) -> None:
    found = rows(measurement, snapshot_of(mlp(6, 16, 16, 3), classes(n=60)))
    names = {column.name for column in measurement.columns}
    assert found and all(set(row) == names for row in found)
    values = {name: [row[name] for row in found] for name in names}
    assert all(type(value) is float for column in values.values() for value in column if value is not None)
    assert all(any(value is not None for value in column)
               for name, column in values.items() if name != "activation_massive_ratio")


def broken(kind: str) -> Snapshot:
    module, data = mlp(6, 16, 16, 3), classes()
    if kind == "no nonlinearity":
        return snapshot_of(mlp(6, 3), data)
    if kind == "one class":
        return snapshot_of(module, Data(data.x_train, data.y_train * 0, data.x_test, data.y_test * 0, 3))
    if kind == "one sample":
        return snapshot_of(module, Data(data.x_train[:1], data.y_train[:1], data.x_test[:1], data.y_test[:1], 3))
    if kind == "no test set":
        return snapshot_of(module, Data(data.x_train, data.y_train, data.x_test[:0], data.y_test[:0], 3))
    if kind == "regression":
        return snapshot_of(mlp(6, 16, 16, 1), regression())
    snapshot = snapshot_of(module, data)
    changed = {"all zero": 0.0, "not finite": float("nan"), "infinite": float("inf"), "too large": 1e200}[kind]
    return snapshot_of(module, data, {name: torch.full_like(p, changed) for name, p in snapshot.params.items()})


BROKEN = ["no nonlinearity", "one class", "one sample", "no test set", "regression", "all zero", "not finite",
          "infinite", "too large"]


@pytest.mark.parametrize("kind", BROKEN)
def test_nothing_raises_and_no_value_is_made_up(kind: str) -> None:
    snapshot = broken(kind)
    for measurement in MEASUREMENTS:
        for row in rows(measurement, snapshot):
            assert all(value is None or abs(value) < float("inf") for value in row.values())
            if kind in ("not finite", "infinite"):
                assert set(row.values()) == {None}


def test_what_is_null_where() -> None:
    def of(measurement: Measurement, kind: str) -> set[Any]:
        return {value for row in rows(measurement, broken(kind)) for value in row.values()}
    for kind in ("one class", "regression", "no nonlinearity"):
        assert of(collapse.MEASUREMENT, kind) <= {None}
    for kind in ("regression", "no test set"):
        assert of(predictions.MEASUREMENT, kind) == {None}
    for kind in ("one sample", "all zero"):
        assert of(dimension.MEASUREMENT, kind) == of(linearity.MEASUREMENT, kind) == {None}
    for kind in ("all zero", "one sample"):
        row = rows(isotropy.MEASUREMENT, broken(kind))[0]
        assert row["activation_isoscore"] is None and row["activation_entropy"] is None
    assert rows(diffusion.MEASUREMENT, broken("regression"))[0]["diffusion_information"] is None
    assert of(tangent.MEASUREMENT, "one class") == {None}


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_constant_activations_up_to_rounding_are_no_geometry(constant: float) -> None:
    layer = layer_of(constant * (1.0 + 1e-9 * randn(50, 7, seed=1)), previous=randn(50, 3))
    for metrics in (isotropy.metrics, dimension.metrics, linearity.metrics):
        found = {name: float(value) for name, value in metrics(layer).items() if name != "probe_samples"}
        assert all(value != value for value in found.values()), found
    assert float(diffusion.metrics(layer)["diffusion_entropy"]) == pytest.approx(0.0, abs=1e-9)
