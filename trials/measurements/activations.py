"""Activations at every hidden nonlinearity, on the probe set; and measurements that are functions of one layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import Column
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.features import Features
from trials.measurements.nulls import values
from trials.measurements.probe import probe

PROBE = 1024  # samples at most
ENTRIES = 2**24  # activations in memory at most, all layers together (128 MiB): wide models get fewer samples


@dataclass(frozen=True, eq=False)
class Layer:
    """One hidden nonlinearity on N probe samples, all float64.

    ``preactivation_N`` and ``activation_N``: its input and output, (N, *shape). ``features``: its output, flattened to
    (N, D). ``previous``: the same of the nonlinearity before it, or of the model's input. ``labels_N``: classes (N,),
    None for regression.
    """

    name: str
    preactivation_N: Tensor
    activation_N: Tensor
    features: Features
    previous: Features
    labels_N: Tensor | None

    @property
    def sound(self) -> bool:
        """Whether all activations are finite, and small enough to square."""
        size = sum((x.square().sum() for x in (self.preactivation_N, self.activation_N, self.previous.points_ND)),
                   start=torch.zeros(()))
        return bool(size.isfinite())


@dataclass(frozen=True, eq=False)
class Activations:
    """The layers in the order of the forward pass, and ``output_NC``, the model's output on the same samples."""

    layers: tuple[Layer, ...]
    output_NC: Tensor


def activations(snapshot: Snapshot) -> Activations:
    """Activations in evaluation mode and without knobs; use it as ``snapshot.shared(activations)``.

    The probe set has PROBE training samples, fewer where the activations of so many would exceed ENTRIES. A
    nonlinearity whose output does not begin with the sample's dimension is left out.
    """
    network, data = snapshot.network, snapshot.data
    _, sites = network.record(snapshot.params, snapshot.buffers, data.x_train[:1])
    entries = sum(site.output_B.numel() for site in sites)
    x_N, y_N = probe(data, min(PROBE, max(2, ENTRIES // max(1, entries))))
    output_NC, sites = network.record(snapshot.params, snapshot.buffers, x_N)
    previous = Features(x_N.flatten(1).to(torch.float64))
    layers = []
    for site in sites:
        if site.output_B.ndim < 2 or len(site.output_B) != len(x_N):
            continue
        before_N, after_N = site.input_B.to(torch.float64), site.output_B.to(torch.float64)
        features = Features(after_N.flatten(1))
        layers.append(Layer(site.name, before_N, after_N, features, previous,
                            y_N if data.classes is not None else None))
        previous = features
    return Activations(tuple(layers), output_NC)


def of_layers(columns: tuple[Column, ...], metrics: Callable[[Layer], Mapping[str, Tensor]]) -> Measurement:
    """The measurement that gives ``metrics`` (NaN is null) of every layer; null for a layer that is not sound."""
    def function(snapshot: Snapshot) -> dict[str, Values]:
        return {layer.name: values(metrics(layer)) if layer.sound else {column.name: None for column in columns}
                for layer in snapshot.shared(activations).layers}
    return Measurement("activations", "layers", columns, function)
