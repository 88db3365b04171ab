"""Losses and accuracies over a whole data set, without knobs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from trials.network import Network
from trials.optimizers.base import Params
from trials.tasks.base import Data

CHUNK = 8192  # samples a forward pass, over all lanes; bounds the memory of an evaluation

Losses = dict[str, float | None]  # train_loss, train_accuracy, test_loss, test_accuracy


def evaluate(network: Network, params: Params, data: Data) -> Losses:
    """``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``; accuracies are None for regression."""
    return _evaluate(network, network, params, data, CHUNK)[0]


def evaluate_lanes(network: Network, params: Params, data: Data) -> list[Losses]:
    """The same for each of K lanes; ``params`` are stacked, (K, ...)."""
    lanes = len(next(iter(params.values())))
    return _evaluate(network, vmap(network, in_dims=(0, None)), params, data, max(64, CHUNK // lanes))


@torch.no_grad()
def _evaluate(network: Network, forward: Callable[[Params, Tensor], Tensor], params: Params, data: Data,
              chunk: int) -> list[Losses]:
    with network.evaluating():
        columns = {"train": _means(forward, params, data, data.x_train, data.y_train, chunk),
                   "test": _means(forward, params, data, data.x_test, data.y_test, chunk)}
    lanes = max(len(values) for pair in columns.values() for values in pair)
    return [{f"{name}_{what}": values[lane] if values else None
             for name, pair in columns.items() for what, values in zip(("loss", "accuracy"), pair, strict=True)}
            for lane in range(lanes)]


def _means(forward: Callable[[Params, Tensor], Tensor], params: Params, data: Data, x: Tensor, y: Tensor,
           chunk: int) -> tuple[list[float], list[float]]:
    """Mean loss and share correct, for each lane; empty where there are no samples, or no classes."""
    losses, correct = [], []
    for start in range(0, len(x), chunk):
        x_B, y_B = x[start : start + chunk], y[start : start + chunk]
        output_BC = forward(params, x_B)
        losses.append(data.loss(output_BC, data.target(y_B)).sum(-1, dtype=torch.float64))
        if data.classes is not None:
            correct.append((output_BC.argmax(-1) == y_B).sum(-1))
    return _mean(losses, len(x)), _mean(correct, len(x))


def _mean(sums: list[Tensor], n: int) -> list[float]:
    if not sums:  # a task may have no test set
        return []
    mean: list[float] = (torch.stack(sums).sum(0).double() / n).reshape(-1).tolist()
    return mean


def finite(value: float | None) -> bool:
    """Whether a loss is a number one can go on with."""
    return value is None or math.isfinite(value)
