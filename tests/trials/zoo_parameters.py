"""Models whose parameters hold more than their numbers, and one whose ``train`` is its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 12


class Net(nn.Module):
    """What ``kind`` says, in the first of two layers."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.norm = nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH)
        self.last = nn.Linear(WIDTH, outputs)
        weight: Any = self.first.weight
        if kind == "scaled gradient":
            weight.register_hook(lambda grad: 0.3 * grad)
        elif kind == "masked gradient":
            mask = (torch.arange(weight.numel()).reshape(weight.shape) % 3 > 0).double()
            weight.register_hook(lambda grad: grad * mask)
        elif kind == "hook that looks":
            weight.register_hook(lambda grad: None)
        elif kind == "flag":
            weight.halved = True
        elif kind == "counter":
            weight.calls = 0
        elif kind == "hook of .grad":
            weight.register_post_accumulate_grad_hook(lambda weight: weight.grad.mul_(0.3))
        elif kind == "view of a parameter":
            self.register_buffer("before", weight.detach())
        elif kind == "view of a buffer":
            self.register_buffer("whole", torch.zeros(2 * WIDTH))
            self.register_buffer("rear", self.whole[WIDTH:])
        elif kind == "true and false":
            self.register_buffer("kept", torch.arange(WIDTH) % 2 > 0)

    def train(self, mode: bool = True) -> Net:
        """The norm of ``frozen norm`` stays in evaluation mode."""
        super().train(mode)
        if self.kind == "frozen norm":
            self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        weight: Any = self.first.weight
        h = self.first(x.flatten(1))
        if getattr(weight, "halved", False):
            h = h / 2
        if self.kind == "counter" and self.training:
            weight.calls += 1
            h = h / weight.calls
        if self.kind == "frozen norm":
            h = self.norm(h)
        if self.kind == "true and false":
            h = h * self.kept
        out: Tensor = self.last(h.relu())
        return out


def net(shape: tuple[int, ...], outputs: int, kind: str) -> nn.Module:
    """One of them."""
    return Net(math.prod(shape), outputs, kind)
