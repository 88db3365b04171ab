"""Models of which something changes as they train, for the tests of trial state; named by ``model(...)`` there."""

from __future__ import annotations

import itertools
import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

WIDTH = 8
CALLS = 0


class Net(nn.Module):
    """Two layers; ``between`` is what ``forward`` does to the hidden units of a batch."""

    calls_of_class = 0

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, outputs)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("late", None)
        self.calls, self.temperature, self.seen = 0, 1.0, []  # type: ignore[var-annotated]
        self.inside: dict[str, Any] = {"deep": [SimpleNamespace(k=0), {"k": 0}]}
        self.tensor = torch.zeros(WIDTH)
        self.drop = nn.Dropout(0.0)
        self.own = itertools.count()
        self.random = random.Random(3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1))
        return self.last(torch.relu(getattr(self, self.kind)(h)))

    def moving_average(self, h: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * h.detach().mean(0))
            self.count += 1
        return h - self.mean

    def reassigned(self, h: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.mean(0).detach()
            self.count = self.count + 1
        return h - self.mean / (1 + self.count)

    def warm_up_in_a_buffer(self, h: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        return torch.where(self.count > 10, h, 0.1 * h)

    def counter(self, h: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return (1.0 if self.calls > 10 else 0.1) * h

    def counts_every_call(self, h: Tensor) -> Tensor:
        self.calls += 1
        return (1.0 if self.calls > 10 else 0.1) * h

    def annealed(self, h: Tensor) -> Tensor:
        if self.training:
            self.temperature *= 0.9
        return h * self.temperature

    def list_grows(self, h: Tensor) -> Tensor:
        if self.training:
            self.seen.append(float(len(self.seen)))
        return h * (1.0 + len(self.seen) / 100)

    def deep(self, h: Tensor) -> Tensor:
        k = self.inside["deep"][1]
        if self.training:
            k["k"] += 1
        return h * (1.0 if k["k"] > 10 else 0.1)

    def tensor_attribute(self, h: Tensor) -> Tensor:
        if self.training:
            self.tensor = (0.9 * self.tensor + 0.1 * h.detach().mean(0)).to(h.dtype)
        return h - self.tensor

    def buffer_that_comes_late(self, h: Tensor) -> Tensor:
        if self.training:
            late = h.detach().mean(0)
            self.late = late if self.late is None else 0.9 * self.late + 0.1 * late
        return h if self.late is None else h - self.late

    def of_a_torch_module(self, h: Tensor) -> Tensor:
        if self.training:
            self.drop.p += 1.0
        return h * (1.0 if self.drop.p > 10 else 0.1)

    def of_the_class(self, h: Tensor) -> Tensor:
        if self.training:
            type(self).calls_of_class += 1
        return h * (1.0 if self.calls_of_class > 10 else 0.1)

    def of_the_file(self, h: Tensor) -> Tensor:
        global CALLS
        if self.training:
            CALLS += 1
        return h * (1.0 if CALLS > 10 else 0.1)

    def own_generator(self, h: Tensor) -> Tensor:
        return h * (1.0 + self.random.random()) if self.training else h

    def iterator(self, h: Tensor) -> Tensor:
        k = next(self.own) if self.training else 11
        return h * (1.0 if k > 10 else 0.1)

    def numpy_draws(self, h: Tensor) -> Tensor:
        return h * (1.0 + np.random.rand()) if self.training else h

    def python_draws(self, h: Tensor) -> Tensor:
        return h * (1.0 + random.random()) if self.training else h


def net(shape: tuple[int, ...], outputs: int, kind: str) -> nn.Module:
    """A Net, or a stack of torch's own layers."""
    inputs = math.prod(shape)
    if hasattr(Net, kind):
        return Net(inputs, outputs, kind)
    first: nn.Module = nn.Linear(inputs, WIDTH)
    between: nn.Module
    if kind == "spectral_norm":
        first, between = spectral_norm(first), nn.Identity()
    elif kind == "old_spectral_norm":
        first, between = nn.utils.spectral_norm(first), nn.Identity()
    elif kind == "weight_norm":
        first, between = weight_norm(first), nn.Identity()
    elif kind == "instance_norm":
        between = nn.Sequential(nn.Unflatten(1, (2, WIDTH // 2)), nn.InstanceNorm1d(2, track_running_stats=True),
                                nn.Flatten())
    elif kind == "cumulative":
        between = nn.BatchNorm1d(WIDTH, momentum=None)
    else:
        between = nn.BatchNorm1d(WIDTH)
    return nn.Sequential(nn.Flatten(), first, between, nn.ReLU(), nn.Linear(WIDTH, outputs))


def frozen(shape: tuple[int, ...], outputs: int, everything: bool = False) -> nn.Module:
    """Random features, and a probe on them."""
    features = nn.Sequential(nn.Linear(math.prod(shape), WIDTH), nn.BatchNorm1d(WIDTH))
    features.requires_grad_(False)
    last = nn.Linear(WIDTH, outputs)
    last.requires_grad_(not everything)
    return nn.Sequential(nn.Flatten(), features, nn.ReLU(), last)


class Complex(nn.Module):
    """With a complex parameter, or a complex buffer."""

    def __init__(self, inputs: int, outputs: int, buffer: bool) -> None:
        super().__init__()
        value = torch.randn(inputs, outputs, dtype=torch.complex64)
        if buffer:
            self.register_buffer("w", value)
            self.bias = nn.Parameter(torch.zeros(outputs))
        else:
            self.w = nn.Parameter(value)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.w.real.T)


def complex_net(shape: tuple[int, ...], outputs: int, buffer: bool = False) -> nn.Module:
    """A Complex."""
    return Complex(math.prod(shape), outputs, buffer)
