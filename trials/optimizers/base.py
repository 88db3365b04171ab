"""What an optimizer is: a rule that updates parameters and its own state in place, for one lane."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from trials.fields import real
from trials.registry import Registry

Params = dict[str, Tensor]
State = dict[str, Params]
O = TypeVar("O", bound="Optimizer")  # noqa: E741 - typing.Self begins with Python 3.11


def global_norm(tensors: Params) -> Tensor:
    """Euclidean norm of all the numbers of all tensors together; a tensor without dimensions."""
    norms = torch.stack([torch.linalg.vector_norm(value) for value in tensors.values()])
    norm: Tensor = torch.linalg.vector_norm(norms)
    return norm


@dataclass(frozen=True)
class Optimizer(ABC):
    """Base of all optimizers: a frozen dataclass whose ``real`` fields are floats, or 0-d tensors (one lane of a pack).

    Code here may not branch on the value of a ``real`` field: under vmap it is a tensor, different from lane to lane.
    """

    lr: float = real(0.01, low=0, help="learning rate")

    @abstractmethod
    def init(self, params: Params) -> State:
        """The state before the first step: per slot (``momentum``, ...) tensors by name, mostly one a parameter."""

    @abstractmethod
    def update(self, params: Params, grads: Params, state: State) -> None:
        """One step, in place on ``params``, some or all of them, and ``state``, whose slot ``skipped`` counts the steps
        that a parameter has not been part of. ``grads`` are left alone: two may share memory."""

    def scheduled(self: O, factor: float | Tensor) -> O:
        """The optimizer of a step at which the schedule is at ``factor`` (a number, or a float64 tensor without
        dimensions): a copy with ``factor`` times the learning rate."""
        lr: Any = self.lr * factor
        return replace(self, lr=lr)


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", "trials.optimizers")
