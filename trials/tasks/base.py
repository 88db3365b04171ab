"""What a task is: data, and whether the answer is a class or a number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from trials.registry import Registry
from trials.streams import Stream


@dataclass(frozen=True)
class Data:
    """The data of a task, on one device. A user's own are checked, and converted where they can mean one thing only
    (see trials.tasks.check).

    ``x_*`` is (n, *input_shape), floating point. For classification ``classes`` is the number of classes and ``y_*``
    is int64 of shape (n,); for regression ``classes`` is None and ``y_*`` is floating, (n, outputs). ``fresh``, where
    given, draws a new batch (stream of the step, batch size) -> (x, y) every step, so that no sample is seen twice;
    the training set then only serves to measure the training loss. Where there is no test set (empty, or both None)
    ``test_loss`` and ``test_accuracy`` are null.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int | None
    fresh: Callable[[Stream, int], tuple[Tensor, Tensor]] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x_train.shape[1:])

    @property
    def outputs(self) -> int:
        """How many numbers the model must return for one input."""
        return self.classes if self.classes is not None else int(self.y_train.shape[1])

    def target(self, y: Tensor) -> Tensor:
        """Targets (B, outputs): one-hot for classes, ``y`` itself for regression."""
        return F.one_hot(y, self.outputs).to(self.dtype) if self.classes is not None else y

    @cached_property
    def train_targets(self) -> Tensor:
        """Targets of the training set (n, outputs), made once."""
        return self.target(self.y_train)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of each example, (B,): cross-entropy against a distribution, or half the squared distance."""
        if self.classes is not None:
            # In steps: torch's own log_softmax takes five times as long over few classes.
            below_top = output - output.detach().amax(-1, keepdim=True)
            return below_top.exp().sum(-1).log() - (target * below_top).sum(-1)
        return 0.5 * (output - target).square().sum(-1)

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the data (and so of the model)."""
        return self.x_train.dtype

    def copy(self) -> Data:
        """The same data in tensors of its own, which may be changed."""
        return replace(self, x_train=self.x_train.clone(), y_train=self.y_train.clone(), x_test=self.x_test.clone(),
                       y_test=self.y_test.clone())

    def first(self, samples: int) -> Data:
        """The first few samples of both sets."""
        return replace(self, x_train=self.x_train[:samples], y_train=self.y_train[:samples],
                       x_test=self.x_test[:samples], y_test=self.y_test[:samples])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Data:
        """The same data on ``device``, its floating tensors in ``dtype``."""
        def move(x: Tensor) -> Tensor:
            return x.to(device, dtype) if x.is_floating_point() else x.to(device)
        fresh = self.fresh

        def draw(stream: Stream, batch_size: int) -> tuple[Tensor, Tensor]:
            assert fresh is not None
            x, y = fresh(stream, batch_size)
            return move(x), move(y)
        return Data(move(self.x_train), move(self.y_train), move(self.x_test), move(self.y_test), self.classes,
                    draw if fresh is not None else None)


class Task(ABC):
    """Base of all tasks: a frozen dataclass whose fields are declared with ``trials.fields``."""

    @abstractmethod
    def data(self) -> Data:
        """Load or generate the data on the CPU; the caller may change them. Equal parameters give equal data."""

    @property
    @abstractmethod
    def train_size(self) -> int | None:
        """Number of training samples, cheaply; None where every batch is fresh and so any batch size is possible."""


TASKS: Registry[Task] = Registry("task", "trials.tasks")
