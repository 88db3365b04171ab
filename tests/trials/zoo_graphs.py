"""Models that keep tensors with their graphs, or make tensors by hooks before their forward pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

WIDTH = 12


class Net(nn.Module):
    """What ``kind`` says, in the first of two layers."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.kind, self.steps = kind, 0
        self.kept: Tensor | None = None
        self.first, self.last = nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, outputs)
        mask = (torch.arange(WIDTH * inputs).reshape(WIDTH, inputs) % 3 > 0).float()
        if kind == "pruned under a norm":
            nn.utils.weight_norm(self.first)
            prune.custom_from_mask(self.first, "weight_v", mask)
        elif kind == "pruned and normed":
            parametrizations.weight_norm(self.first)
            prune.custom_from_mask(self.first.parametrizations.weight, "original1", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        weight = self.first.weight
        self.steps += self.training
        if self.kind == "held still":
            self.first.bias.requires_grad_(self.steps > 1)
        if self.kind == "delayed":  # each pass uses what the one before has made of the weight
            weight, self.kept = 0.5 * weight if self.kept is None else self.kept, 0.5 * weight
        elif self.kind == "used twice":
            self.kept = 0.5 * weight if self.kept is None else self.kept
            weight = self.kept
        h = nn.functional.linear(x.flatten(1), weight, self.first.bias).relu()
        if self.kind == "looked at":
            self.kept = h
        out: Tensor = self.last(h)
        return out


def net(shape: tuple[int, ...], outputs: int, kind: str) -> nn.Module:
    """One of them."""
    return Net(math.prod(shape), outputs, kind)
