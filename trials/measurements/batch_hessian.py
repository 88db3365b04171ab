"""Hessians of single batches: what SGD sees of the curvature, and along its own step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.hessian import Hessian
from trials.measurements.lanczos import lanczos
from trials.measurements.nulls import values
from trials.measurements.objective import Objective, objective
from trials.measurements.trace import samples

DRAWS = 8
# A batch costs time and memory in proportion to its size, and the larger it is the less its Hessian differs from that
# of the probe set: at twice the probe set this measurement costs more than all others together, and ends.
LARGEST_BATCH = 1024
TOLERANCE = 1e-2  # of the residual; the eigenvalue's own error is about its square, and the spread over batches larger


@dataclass(frozen=True, eq=False)
class Batches:
    """Of each of ``DRAWS`` random batches, (DRAWS,): ``top``, the largest eigenvalue of its Hessian; ``sharpness``
    g^T H g / norm(g)^2 along its own gradient g (NaN where g = 0); ``square``, an unbiased sample of norm(H)_F^2."""

    top: Tensor
    sharpness: Tensor
    square: Tensor


def draws(snapshot: Snapshot) -> Iterator[Objective]:
    """``DRAWS`` batches of the trial's batch size, each without replacement from the whole training set, or fresh."""
    data, of, stream = snapshot.data, snapshot.shared(objective), snapshot.stream("batch_hessian data")
    for i in range(DRAWS):
        if data.fresh is not None:
            yield of.on(*data.fresh(stream.at(i), snapshot.batch_size))
        else:
            order = stream.at(i).bits((len(data.x_train),)).argsort()[: snapshot.batch_size]
            yield of.on(data.x_train[order], data.y_train[order])


def batches(snapshot: Snapshot) -> Batches | None:
    """The Hessians of random batches; None for batches above ``LARGEST_BATCH``."""
    if snapshot.batch_size > LARGEST_BATCH:
        return None
    stream, rows = snapshot.stream("batch_hessian"), []
    for i, batch in enumerate(draws(snapshot)):
        operator = Hessian(batch)
        g = operator.gradient
        start = stream.at(i).at(0).normal(tuple(g.shape), g.dtype)
        space = lanczos(operator, start, settled=lambda found: found.converged(1, 0, TOLERANCE))
        _, square = samples(operator, space, stream.at(i).at(1), 1)
        rows.append(torch.stack([space.values_M[0], g @ operator(g) / (g @ g), square[0]]))
    return Batches(*torch.stack(rows, dim=1))


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    found = snapshot.shared(batches)
    if found is None:
        return {column.name: None for column in MEASUREMENT.columns}
    return values({
        "batch_hessian_max": found.top.mean(), "batch_hessian_max_sd": found.top.std(),
        "batch_sharpness": found.sharpness.mean(), "batch_sharpness_error": found.sharpness.std() / DRAWS**0.5})


MEASUREMENT = Measurement(
    group="curvature",
    table="steps",
    columns=(
        number("batch_hessian_max", "largest eigenvalue of the Hessian of a random batch, mean of 8 of the trial's "
               "size; null for batches above 1024"),
        number("batch_hessian_max_sd", "standard deviation of that eigenvalue over these batches"),
        number("batch_sharpness", "mean over these batches of g.Hg / g.g, g and H the batch's own gradient and Hessian "
               "(arXiv 2412.20553)"),
        number("batch_sharpness_error", "standard error of batch_sharpness"),
    ),
    function=measure,
)
