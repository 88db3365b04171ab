"""Losses and accuracies over a whole data set, without knobs, but with the labels that a knob has changed for good."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from trials.columns import number
from trials.network import Network
from trials.optimizers.base import Params
from trials.tasks.base import Data

CHUNK = 8192  # samples a forward pass, over all lanes; bounds the memory of an evaluation
LOSSES = (
    number("train_loss", "mean loss over the training set, evaluated without knobs, but against the labels that are "
           "trained on where a knob replaces some for good", "nat or squared unit"),
    number("train_accuracy", "fraction of the training set classified as labelled there; null for regression"),
    number("test_loss", "mean loss over the test set", "nat or squared unit"),
    number("test_accuracy", "fraction of the test set classified correctly; null for regression"),
    number("train_loss_clean", "train_loss of the samples whose label no knob has changed; null without such a knob",
           "nat"),
    number("train_accuracy_clean", "train_accuracy of these"),
    number("train_loss_corrupted", "train_loss of the samples whose label a knob has changed; null if there are none",
           "nat"),
    number("train_accuracy_corrupted", "train_accuracy of these: the fraction that is memorized"),
    number("train_accuracy_corrected", "fraction of these that is classified as its true label"),
    number("train_label_noise", "fraction of the training set whose label a knob has changed"),
)
NAMES = tuple(column.name for column in LOSSES)
Losses = dict[str, float | None]  # by the names of LOSSES; None is null


def evaluate(network: Network, params: Params, buffers: Params, data: Data, given_n: Tensor | None = None) -> Losses:
    """Loss and accuracy (None for regression) on the training and the test set.

    ``given_n`` are the classes of the training samples where a knob has changed some: the training loss is against
    these, and clean and corrupted samples are told apart too.
    """
    return _evaluate(network, partial(network, params, buffers), data, given_n, CHUNK)[0]


def evaluate_lanes(network: Network, params: Params, buffers: Params, data: Data, given_Kn: Tensor | None = None,
                   ) -> list[Losses]:
    """The same for each of K lanes; ``params`` and ``buffers`` are stacked, (K, ...)."""
    lanes = len(next(iter(params.values())))
    forward = partial(vmap(network, in_dims=(0, 0, None)), params, buffers)
    return _evaluate(network, forward, data, given_Kn, max(64, CHUNK // lanes))


def chance_loss(data: Data, given_n: Tensor | None = None) -> float:
    """The training loss of the best constant output: the entropy of the shares of the classes, or half the variance of
    the targets."""
    targets = data.train_targets if given_n is None else data.target(given_n)
    mean_C = targets.mean(0, dtype=torch.float64)
    if data.classes is not None:
        return float(torch.special.entr(mean_C).sum())
    return float(0.5 * (targets.double() - mean_C).square().sum(-1).mean())


@torch.no_grad()
def _evaluate(network: Network, forward: Callable[[Tensor], Tensor], data: Data, given: Tensor | None, chunk: int,
              ) -> list[Losses]:
    with network.evaluating():
        means = {"train": _means(forward, data, data.x_train, data.y_train, given, chunk),
                 "test": _means(forward, data, data.x_test, data.y_test, None, chunk)}
    columns = {f"{name}_{what}": values for name, each in means.items() for what, values in each.items()}
    lanes = max(map(len, columns.values()))
    return [{name: columns[name][lane] if name in columns else None for name in NAMES} for lane in range(lanes)]


def _means(forward: Callable[[Tensor], Tensor], data: Data, x: Tensor, y: Tensor, given: Tensor | None, chunk: int,
           ) -> dict[str, list[float | None]]:
    """Means over the samples that a column is of, for each lane; None where there are no such samples."""
    sums: dict[str, list[Tensor]] = {}
    for start in range(0, len(x), chunk):
        x_B, y_B = x[start : start + chunk], y[start : start + chunk]
        given_B = y_B if given is None else given[..., start : start + chunk]
        output_BC = forward(x_B)
        found = {"loss": data.loss(output_BC, data.target(given_B))}
        if data.classes is not None:
            class_B = output_BC.argmax(-1)
            found["accuracy"] = class_B == given_B
            if given is not None:
                found |= _apart(found["loss"], class_B, given_B, y_B)
        for what, values in found.items():
            sums.setdefault(what, []).append(values.sum(-1, dtype=torch.float64))
    return _divided({what: torch.stack(each).sum(0).reshape(-1) for what, each in sums.items()}, len(x))


def _apart(loss_B: Tensor, class_B: Tensor, given_B: Tensor, true_B: Tensor) -> dict[str, Tensor]:
    """Clean and corrupted samples; a loss that is not finite stays with its own."""
    corrupted_B = given_B != true_B
    hit_B, none_B = class_B == given_B, torch.zeros_like(loss_B)
    return {"label_noise": corrupted_B,
            "loss_clean": torch.where(corrupted_B, none_B, loss_B), "accuracy_clean": hit_B & ~corrupted_B,
            "loss_corrupted": torch.where(corrupted_B, loss_B, none_B), "accuracy_corrupted": hit_B & corrupted_B,
            "accuracy_corrected": (class_B == true_B) & corrupted_B}


def _divided(sums: dict[str, Tensor], n: int) -> dict[str, list[float | None]]:
    corrupted = sums.get("label_noise", torch.zeros(()))
    counts = {"clean": n - corrupted, "corrupted": corrupted, "corrected": corrupted}
    means: dict[str, list[float | None]] = {}
    for what, total in sums.items():
        count = counts.get(what.rpartition("_")[2])
        if count is None:
            means[what] = (total / n).tolist()
        else:
            found = zip((total / count).tolist(), count.tolist(), strict=True)
            means[what] = [value if some else None for value, some in found]
    return means


def finite(value: float | None) -> bool:
    """Whether a loss is a number one can go on with."""
    return value is None or math.isfinite(value)
