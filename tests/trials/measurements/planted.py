"""Planted layers and small snapshots for the tests of measurements."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from trials.measurements.activations import Layer
from trials.measurements.base import Snapshot
from trials.measurements.features import Features
from trials.network import Network, tensors
from trials.optimizers.base import Params
from trials.streams import Stream
from trials.tasks.base import Data

torch.set_num_threads(1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_of(activation: Tensor, *, preactivation: Tensor | None = None, previous: Tensor | None = None,
             labels: Tensor | None = None) -> Layer:
    """A layer with these activations (N, *shape)."""
    before = activation if previous is None else previous
    return Layer("act", activation if preactivation is None else preactivation, activation,
                 Features(activation.flatten(1)), Features(before.flatten(1)), labels)


def classes(n: int = 40, d: int = 6, k: int = 3, seed: int = 0) -> Data:
    """Classification of noise, float64."""
    y = torch.arange(n) % k
    return Data(randn(n, d, seed=seed), y, randn(n, d, seed=seed + 1), y, k)


def regression(n: int = 40, d: int = 6, outputs: int = 1) -> Data:
    """Regression of noise on noise, float64."""
    return Data(randn(n, d), randn(n, outputs, seed=1), randn(n, d, seed=2), randn(n, outputs, seed=3), None)


def snapshot_of(module: nn.Module, data: Data, params: Params | None = None) -> Snapshot:
    """A snapshot of the module, with its own parameters as the initial ones, and as those now unless given."""
    network = Network(module.to(data.dtype))
    initial, buffers = tensors(network.module)
    return Snapshot(network, initial if params is None else params, buffers, initial, buffers, data, 1, 8, 0.1, 0.0,
                    Stream.of(0, "measure"))


def mlp(*widths: int, seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """fc1, act1, fc2, ... of these widths, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential()
        for i, (inputs, outputs) in enumerate(pairwise(widths), 1):
            module.add_module(f"fc{i}", nn.Linear(inputs, outputs))
            if i < len(widths) - 1:
                module.add_module(f"act{i}", activation())
        return module.to(torch.float64)
