"""Samples whose gradient the rounding of the softmax has set to zero."""

from __future__ import annotations

import torch

from trials.columns import number
from trials.evaluate import CHUNK
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.nulls import values


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``, over the whole training set in the precision of the training.

    The gradient of a sample's loss by its logits is p - y. Once the other classes are below half a unit in the last
    place together (6e-8 in float32), p rounds to exactly 1 in the sample's own class, the loss to 0, and this class no
    longer pulls: softmax collapse (Prieto et al. 2025, arXiv 2501.04697). The others still push with their own tiny p,
    until that underflows too and the whole gradient is zero.
    """
    network, data = snapshot.network, snapshot.data
    if data.classes is None:
        return {column.name: None for column in MEASUREMENT.columns}
    collapsed, gone = (torch.zeros((), dtype=torch.int64, device=data.x_train.device) for _ in range(2))
    with network.evaluating():
        for x_B, y_B in zip(torch.split(data.x_train, CHUNK), torch.split(data.y_train, CHUNK), strict=True):
            with torch.no_grad():
                output_BC = network(snapshot.params, snapshot.buffers, x_B)
            output_BC.requires_grad_()
            loss = data.loss(output_BC, data.target(y_B)).sum()
            slope_BC = torch.autograd.grad(loss, output_BC)[0]
            collapsed += (slope_BC.gather(1, y_B[:, None]) == 0).sum()
            gone += (slope_BC == 0).all(1).sum()
    n = len(data.x_train)
    return values({"softmax_collapse": collapsed / n, "zero_gradient": gone / n})


MEASUREMENT = Measurement(
    group="gradients",
    table="steps",
    columns=(
        number("softmax_collapse", "fraction of the training set whose softmax is exactly 1 in its own class, in the "
               "precision of the training; null for regression"),
        number("zero_gradient", "fraction whose gradient by the logits is exactly zero in that precision: the softmax "
               "is exactly one-hot; null for regression"),
    ),
    function=measure,
)
