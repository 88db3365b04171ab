"""Models whose tensors are reached in other ways than by the module's own attributes, or not when it is expected."""

from __future__ import annotations

import copy
import functools
import math
from collections import deque
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

WIDTH, RANK = 12, 3


class Merging(nn.Linear):
    """A linear layer with an adapter, which is merged into its weight in evaluation mode."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.a, self.b = nn.Parameter(torch.randn(RANK, inputs) / 8), nn.Parameter(torch.zeros(outputs, RANK))
        self.weight.requires_grad_(False)
        self.merged = False

    def train(self, mode: bool = True) -> Merging:
        """Merge, or take apart again."""
        super().train(mode)
        if self.merged == mode:
            self.weight.data += (-1 if mode else 1) * self.b.data @ self.a.data
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The weight's, and in training the adapter's."""
        out = super().forward(x)
        return out if self.merged else out + x @ self.a.mT @ self.b.mT


class Feedback(torch.autograd.Function):
    """The identity, whose gradient is turned by what the last layer's weight is then."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, net: Net) -> Tensor:
        """h."""
        ctx.net = net
        return h.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Its gradient, and a bit of the weight's mean."""
        return grads[0] * (1.0 + ctx.net.last.weight.detach().mean()), None


class Accumulating(torch.autograd.Function):
    """A module that is run again in the backward pass, which adds to the ``.grad`` of its parameters by itself."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, module: nn.Module) -> Tensor:
        """The module's output."""
        ctx.module = module
        ctx.save_for_backward(h)
        with torch.no_grad():
            out: Tensor = module(h)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        """By a backward pass in the backward pass."""
        h = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            out = ctx.module(h)
        torch.autograd.backward(out, grads[0])
        return h.grad, None


class Net(nn.Module):
    """What ``kind`` says, in the first or the middle one of three layers."""

    shared: Any = None

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, outputs)
        self.mid = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())
        weight, bias = self.first.weight, self.first.bias
        self.held: Any = None
        if kind == "list":
            self.held = [weight]
        elif kind == "deque in a dictionary":
            self.held = {"of": deque([bias, weight])}
        elif kind == "attribute":
            self.held = SimpleNamespace(weight=weight)
        elif kind == "class":
            type(self).shared = weight
        elif kind == "closure":
            self.held = lambda x: F.linear(x, weight, bias)
        elif kind == "all of them":
            self.held = list(self.parameters())
        elif kind == "tuple":
            self.held = (weight, bias)
        elif kind == "partial":
            self.held = functools.partial(torch.mul, weight)
        elif kind == "view":
            self.held = weight.detach()
        elif kind == "beside it in memory":
            one, other = torch.randn(2, WIDTH).unbind()
            self.first.bias, self.held = nn.Parameter(one), other
        elif kind == "array":
            self.held = weight.detach().numpy()[1:]
        elif kind == "sparse constant":
            self.held = torch.eye(WIDTH, dtype=torch.float64).to_sparse_csr()
        elif kind == "on meta":
            self.held = nn.Linear(WIDTH, WIDTH, device="meta")
            self.__dict__["held"] = self._modules.pop("held")  # a form that weights are put into
        elif kind == "made before":
            self.held = 0.5 * weight
        elif kind == "tied":
            self.twin = nn.Linear(WIDTH, WIDTH)
            self.twin.weight = self.mid[0].weight
        elif kind == "sparse":
            self.table = nn.Embedding(17, 2, sparse=True)
            self.last = nn.Linear(2 * inputs, outputs)
        elif kind == "recurrent":
            self.cell = nn.LSTM(8, WIDTH, batch_first=True)
        elif kind == "swapped":
            self.mid = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        elif kind == "unused":
            self.spare = nn.Linear(WIDTH, WIDTH)
        elif kind == "experts":
            self.mid = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))  # type: ignore[assignment]
        elif kind == "merged":
            self.first = Merging(inputs, WIDTH)
        elif kind == "hook that reads":
            weight.register_hook(lambda grad: grad + 0.01 * self.last.weight.detach().sign().sum())
        elif kind == "counted backward":
            self.register_buffer("seen", torch.zeros(()))
            self.last.register_full_backward_hook(lambda module, inputs, outputs: self._count(outputs[0]))
        elif kind == "teacher":
            self.teacher = copy.deepcopy(self.mid).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if self.kind == "sparse":
            places = (x.flatten(1).abs() * 8).long().clamp(0, 16)
            out: Tensor = self.last(self.table(places).flatten(1))
            return out
        out = self.last(self._middle(torch.tanh(self._first(x))))
        if self.kind == "all of them" and self.training:
            out = out * (1.0 + sum(value.square().sum() for value in self.held)).rsqrt()
        return out

    def _count(self, grad: Tensor) -> None:
        self.seen += grad.detach().norm()

    def _first(self, x: Tensor) -> Tensor:
        if self.kind == "recurrent":
            sequence, _ = self.cell(x.reshape(len(x), 8, 8))
            last: Tensor = sequence[:, -1]
            return last
        x = x.flatten(1)
        if self.kind == "made at first" and self.held is None:
            self.held = nn.Linear(len(x.T), WIDTH).to(x)
        if self.kind == "named again":
            self.again = self.first.weight
            x = x * self.again.detach().mean()
        if self.kind == "named once" and not hasattr(self, "again"):
            self.again = self.first.weight
        if self.kind == "replaced" and self.training:
            self.first.weight = nn.Parameter(0.99 * self.first.weight.detach())
        if self.kind == "grad" and self.first.weight.grad is not None:
            x = x + self.first.weight.grad.mean()
        made: dict[str, Any] = {
            "list": lambda: F.linear(x, self.held[0], self.first.bias),
            "deque in a dictionary": lambda: F.linear(x, self.held["of"][1], self.held["of"][0]),
            "class": lambda: F.linear(x, Net.shared, self.first.bias),
            "attribute": lambda: F.linear(x, self.held.weight, self.first.bias),
            "closure": lambda: self.held(x), "made at first": lambda: self.held(x),
            "named once": lambda: F.linear(x, self.again, self.first.bias),
            "made before": lambda: F.linear(x, self.held)}
        h: Tensor = made.get(self.kind, lambda: self.first(x))()
        return h

    def _middle(self, h: Tensor) -> Tensor:
        if self.kind == "computed again":
            again: Tensor = checkpoint(self.mid, h, use_reentrant=False)
            return again
        if self.kind == "computed again as of old":
            again = checkpoint(self.mid, h, use_reentrant=True)
            return again
        if self.kind == "accumulated":
            again = Accumulating.apply(h, self.mid[0])  # type: ignore[no-untyped-call]
            return again
        if self.kind == "gradient kept" and self.training:
            earlier, self.held = self.held, h
            h.retain_grad()
            if earlier is not None and earlier.grad is not None:
                h = h + 5 * earlier.grad.mean(0)
        if self.kind == "feedback":
            h = Feedback.apply(h, self)  # type: ignore[no-untyped-call]
        if self.kind == "counted backward":
            h = h / (1 + self.seen)
        if self.kind == "teacher":
            if not self.training:
                taught: Tensor = self.teacher(h)
                return taught
            with torch.no_grad():
                for ours, theirs in zip(self.teacher.parameters(), self.mid.parameters(), strict=True):
                    ours.lerp_(theirs, 0.1)
        if self.kind == "sparse constant":
            h = (self.held @ h.mT).mT
        if self.kind == "on meta":
            h = torch.func.functional_call(self.held, dict(self.mid[0].named_parameters()), (h,))
        if self.kind == "swapped" and self.training:
            one, other = self.mid[0].weight, self.mid[2].weight
            one.data, other.data = other.data, one.data
        if self.kind == "experts":
            expert = self.mid[int(h.detach().sum().abs() * 10) % 4]
            h = expert(h)
            return h
        if self.kind == "asks for parameters":
            h = h * sum(value.requires_grad and isinstance(value, nn.Parameter) for value in self.parameters())
        if self.kind == "tied":
            h = torch.tanh(self.twin(h))
        out: Tensor = self.mid(h)
        return out


def net(shape: tuple[int, ...], outputs: int, kind: str) -> nn.Module:
    """One of them."""
    module = Net(math.prod(shape), outputs, kind)
    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))) if kind == "script" else module
