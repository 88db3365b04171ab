"""Models whose state lies where an attribute of a module does not show it, for the tests of trial state: each changes
what it does at its tenth step of training, ``teacher`` and ``alias`` at every one."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import hidden_beside
import numpy as np
import torch
from torch import Tensor, nn

LATE = 10


class Slots:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


class History(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


class Own:
    def __init__(self) -> None:
        self.n, self.itself = 0, self


def called() -> int:
    """Counts its calls in an attribute of its own."""
    called.n = getattr(called, "n", 0) + 1  # type: ignore[attr-defined]
    return int(called.n)  # type: ignore[attr-defined]


@functools.lru_cache
def cached() -> dict[str, int]:
    """A state that only the cache holds."""
    return {"n": 0}


def add(state: dict[str, int], key: str) -> int:
    """One more."""
    state[key] += 1
    return state[key]


def generated() -> Iterator[int]:
    """From 1 on."""
    yield from itertools.count(1)


def counting() -> Callable[[], int]:
    """A closure that counts its calls."""
    n = 0

    def one_more() -> int:
        nonlocal n
        n += 1
        return n
    return one_more


class Counts(nn.Module):
    """One layer, whose output is scaled by ``kind`` of counter."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.fc, self.kind = nn.Linear(inputs, outputs), kind
        self.state: Any = {
            "slots": Slots, "history": History, "table": lambda: Table(n=0), "own": Own, "closure": counting,
            "partial": lambda: functools.partial(add, {"n": 0}, "n"), "numpy": lambda: np.int64(0),
            "array": lambda: np.zeros(2, np.uint8), "decimal": lambda: Decimal(0), "fraction": lambda: Fraction(0),
            "iterator": lambda: iter(range(1, 1000)), "chain": lambda: itertools.chain([1] * 9, itertools.repeat(99)),
            "generator": generated, "long": lambda: [0.0] * 30_000, "namespace": lambda: SimpleNamespace(n=[0]),
        }.get(kind, lambda: None)()

    def forward(self, x: Tensor) -> Tensor:
        n = self.count() if self.training else 1
        return self.fc(x.flatten(1)) * (1.0 if n < LATE else 0.2)

    def count(self) -> float:
        state = self.state
        if self.kind in ("slots", "own"):
            state.n += 1
            return int(state.n)
        if self.kind == "history":
            state.append(1)
            return len(state)
        if self.kind == "table":
            return add(state, "n")
        if self.kind in ("closure", "partial"):
            return int(state())
        if self.kind in ("numpy", "decimal", "fraction"):
            self.state += 1
            return float(self.state)
        if self.kind in ("array", "long"):
            state[-1] += 1
            return float(state[-1])
        if self.kind == "namespace":
            state.n[0] += 1
            return int(state.n[0])
        if self.kind in ("iterator", "chain", "generator"):
            return int(next(state))
        if self.kind == "function":
            return called()
        if self.kind == "cache":
            return add(cached(), "n")
        return LATE if hidden_beside.scale() < 1.0 else 1


class Teacher(nn.Module):
    """An average of its own weights, in a list, where neither ``parameters()`` nor ``buffers()`` find it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.teacher = [nn.Linear(inputs, outputs).double().requires_grad_(False)]
        nn.init.ones_(self.teacher[0].weight)
        nn.init.zeros_(self.teacher[0].bias)

    def forward(self, x: Tensor) -> Tensor:
        [teacher] = self.teacher
        if self.training:
            with torch.no_grad():
                teacher.weight.lerp_(self.fc.weight.detach(), 0.05)
        return self.fc(x.flatten(1)) + teacher(x.flatten(1))


class Alias(nn.Module):
    """Two names each of a tensor and of a list."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.a = torch.zeros(outputs, dtype=torch.float64)
        self.b, self.list = self.a, [0.0]
        self.also = {"list": self.list}

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.flatten(1))
        if self.training:
            self.a += 0.01 * y.mean(0).detach()
            self.list[0] += 0.01
        return y - self.b - self.also["list"][0] * y


class Clamped(nn.Module):
    """Whose weights are kept small by its forward pass."""

    def __init__(self, inputs: int, outputs: int, assigned: bool) -> None:
        super().__init__()
        self.fc, self.assigned = nn.Linear(inputs, outputs), assigned

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.assigned:
            self.fc.weight.data = self.fc.weight.data.clamp(-0.05, 0.05)
        elif self.training:
            self.fc.weight.data.clamp_(-0.05, 0.05)
        return self.fc(x.flatten(1))


class Features(nn.Module):
    """A tensor of each seed's own that is no buffer, of which the first output shows nothing."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.kind, self.drawn = kind, torch.randn(inputs, 16, dtype=torch.float64) / 4
        self.head = nn.Linear(inputs if kind == "in_training" else 16, outputs)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.kind == "in_training":
            return self.head(x + self.drawn[:, 0] if self.training else x)
        return self.head(torch.cos(x @ self.drawn))


def net(shape: tuple[int, ...], outputs: int, kind: str) -> nn.Module:
    """The model of this kind."""
    inputs = math.prod(shape)
    if kind == "teacher":
        return Teacher(inputs, outputs)
    if kind == "alias":
        return Alias(inputs, outputs)
    if kind in ("assigned", "in_place"):
        return Clamped(inputs, outputs, kind == "assigned")
    if kind in ("features", "in_training"):
        return Features(inputs, outputs, kind)
    if kind != "hook":
        return Counts(inputs, outputs, kind)
    stack, state = nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs)), {"n": 0}

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        state["n"] += module.training
        return output * (1.0 if state["n"] < LATE else 0.2)
    stack[1].register_forward_hook(hook)
    return stack
