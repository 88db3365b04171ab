"""Losses and accuracies over a whole data set, without knobs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trials.network import Network
from trials.optimizers.base import Params
from trials.tasks.base import Data

CHUNK = 8192  # samples a forward pass; bounds the memory of an evaluation


@torch.no_grad()
def evaluate(network: Network, params: Params, data: Data) -> dict[str, float | None]:
    """``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``; accuracies are None for regression."""
    with network.evaluating():
        train_loss, train_accuracy = _mean(network, params, data, data.x_train, data.y_train)
        test_loss, test_accuracy = _mean(network, params, data, data.x_test, data.y_test)
    return {"train_loss": train_loss, "train_accuracy": train_accuracy,
            "test_loss": test_loss, "test_accuracy": test_accuracy}


def _mean(network: Network, params: Params, data: Data, x: Tensor, y: Tensor) -> tuple[float | None, float | None]:
    if not len(x):  # a task may have no test set
        return None, None
    loss = torch.zeros((), dtype=torch.float64, device=x.device)
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    for start in range(0, len(x), CHUNK):
        x_B, y_B = x[start : start + CHUNK], y[start : start + CHUNK]
        output_BC = network(params, x_B)
        loss += data.loss(output_BC, data.target(y_B)).sum(dtype=torch.float64)
        if data.classes is not None:
            correct += (output_BC.argmax(-1) == y_B).sum()
    accuracy = correct.item() / len(x) if data.classes is not None else None
    return loss.item() / len(x), accuracy


def finite(value: float | None) -> bool:
    """Whether a loss is a number one can go on with."""
    return value is None or math.isfinite(value)
