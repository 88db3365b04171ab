"""Which samples make up the batch of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trials.errors import UserError
from trials.spec import TrialSpec
from trials.step import Batch
from trials.streams import Stream, generator
from trials.tasks.base import Data

AHEAD = 32  # steps whose samples are looked up together, for a pack


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
        self.stream = Stream.of(seed, "data", data.x_train.device)

    def __getitem__(self, step: int) -> Batch:
        if self._data.fresh is not None:
            return fresh(self._data, self.stream, step, self._batch_size)
        return stored(self._data, self.samples(step)[0])

    def samples(self, step: int, steps: int = 1) -> Tensor:
        """Which samples of the training set the next ``steps`` batches from ``step`` on hold, (steps, B)."""
        epoch, offset = divmod(step * self._batch_size, self._n)
        missing = offset + steps * self._batch_size
        orders = []
        while missing > 0:
            orders.append(self._order(epoch))
            epoch, missing = epoch + 1, missing - self._n
        taken = orders[0] if len(orders) == 1 else torch.cat(orders)
        return taken[offset : offset + steps * self._batch_size].reshape(steps, self._batch_size)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {past: order for past, order in self._orders.items() if past >= epoch - 1}
            order = torch.randperm(self._n, generator=generator(self._seed, "order", epoch))
            self._orders[epoch] = order.to(self._data.x_train.device)
        return self._orders[epoch]


class PackBatches:
    """The batches of K trials that share their data and batch size, stacked along a first dimension.

    ``seeds`` and ``taken`` are the lanes' seeds and the steps that each has taken so far.
    """

    def __init__(self, data: Data, batch_size: int, seeds: Sequence[int], taken: Sequence[int]) -> None:
        self._data = data
        # Lanes with the same seed at the same step look at the same samples: they are looked up once.
        places = {place: number for number, place in enumerate(dict.fromkeys(zip(seeds, taken, strict=True)))}
        self._each = [(Batches(data, batch_size, seed), start) for seed, start in places]
        self._of_lane = torch.tensor([places[place] for place in zip(seeds, taken, strict=True)],
                                     device=data.x_train.device)
        self._ahead: Tensor | None = None
        self._step = 0

    def next(self) -> Batch:
        """The next batch of every lane: (K, B, ...). Not for fresh data."""
        offset = self._step % AHEAD
        if self._ahead is None or offset == 0:
            ahead = [batches.samples(start + self._step, AHEAD) for batches, start in self._each]
            self._ahead = torch.stack(ahead, 1)
        self._step += 1
        each = stored(self._data, self._ahead[offset])
        lanes = len(self._of_lane)
        if len(self._each) == lanes:
            return each
        parts = (each.x_B, each.target_BC, self._ahead[offset])
        if len(self._each) == 1:
            return Batch(*(part.expand(lanes, *part.shape[1:]) for part in parts))
        return Batch(*(part.index_select(0, self._of_lane) for part in parts))


def stored(data: Data, samples: Tensor) -> Batch:
    """The batch of these samples of the training set, (B,) or (K, B)."""
    flat = samples.reshape(-1)  # index_select takes a third of the time of indexing
    x, target = (part.index_select(0, flat) for part in (data.x_train, data.train_targets))
    return Batch(x.reshape(*samples.shape, *x.shape[1:]), target.reshape(*samples.shape, *target.shape[1:]), samples)


def fresh(data: Data, stream: Stream, step: int | Tensor, batch_size: int) -> Batch:
    """The batch that is drawn for ``step`` where no sample is seen twice."""
    assert data.fresh is not None
    x_B, y_B = data.fresh(stream.at(step), batch_size)
    return Batch(x_B, data.target(y_B))


def total_steps(spec: TrialSpec, train_size: int | None) -> int:
    """Optimizer steps of a trial at its full budget. ``train_size`` None means fresh data, which have no epochs."""
    if spec.budget["steps"]:
        return int(spec.budget["steps"])
    if train_size is None:
        raise UserError(f"trial.budget.epochs: task {spec.task['name']!r} draws fresh samples and has no epochs; "
                        "give budget.steps")
    epochs: float = spec.budget["epochs"]
    return max(1, math.ceil(round(epochs * train_size / spec.batch_size, 6)))
