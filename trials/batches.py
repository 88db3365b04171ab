"""Which samples make up the batch of a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trials.errors import UserError
from trials.spec import TrialSpec
from trials.step import Batch
from trials.streams import Stream, generator
from trials.tasks.base import Data


class Batches:
    """The batches of a trial, by step number, so that a trial can start anywhere.

    The data are shuffled once an epoch and read as one endless sequence: every batch has exactly ``batch_size`` samples
    (one may straddle two epochs), every epoch shows every sample once, and an epoch is n / batch_size steps, a whole
    number or not. Tasks with fresh data draw each batch from the stream of its step instead.
    """

    def __init__(self, data: Data, batch_size: int, seed: int) -> None:
        self._data, self._batch_size, self._seed = data, batch_size, seed
        self._n = len(data.x_train)
        self._orders: dict[int, Tensor] = {}
        self._stream = Stream.of(seed, "data", data.x_train.device)

    def __getitem__(self, step: int) -> Batch:
        if self._data.fresh is not None:
            return Batch(*self._data.fresh(self._stream.at(step), self._batch_size))
        start = step * self._batch_size
        epoch, offset = divmod(start, self._n)
        taken = self._order(epoch)[offset : offset + self._batch_size]
        if len(taken) < self._batch_size:
            taken = torch.cat([taken, self._order(epoch + 1)[: self._batch_size - len(taken)]])
        return Batch(self._data.x_train[taken], self._data.y_train[taken])

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {past: order for past, order in self._orders.items() if past == epoch - 1}
            order = torch.randperm(self._n, generator=generator(self._seed, "order", epoch))
            self._orders[epoch] = order.to(self._data.x_train.device)
        return self._orders[epoch]


def total_steps(spec: TrialSpec, train_size: int | None) -> int:
    """Optimizer steps of a trial at its full budget. ``train_size`` None means fresh data, which have no epochs."""
    if spec.budget["steps"]:
        return int(spec.budget["steps"])
    if train_size is None:
        raise UserError(f"trial.budget.epochs: task {spec.task['name']!r} draws fresh samples and has no epochs; "
                        "give budget.steps")
    epochs: float = spec.budget["epochs"]
    return max(1, math.ceil(round(epochs * train_size / spec.batch_size, 6)))
