"""Scores of the predicted probabilities on the test set.

With p_i the softmax of the model's output and y_i the class of sample i of n:

- NLL = mean -ln p_i(y_i);
- Brier score = mean sum_c (p_i(c) - [c = y_i])^2, between 0 and 2 (Brier 1950);
- expected calibration error ECE = sum_b n_b / n |accuracy_b - confidence_b| over BINS bins of equal width of the
  confidence max_c p_i(c) (Guo et al. 2017, arXiv 1706.04599); bin b is ((b - 1) / BINS, b / BINS].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trials.columns import number
from trials.evaluate import CHUNK
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.nulls import values

BINS = 15
COLUMNS = (
    number("test_nll", "mean negative log-likelihood on the test set; null for regression", "nat"),
    number("test_brier", "mean squared distance of predicted probabilities and one-hot labels on the test set, 0 to 2"),
    number("test_ece", f"expected calibration error on the test set, {BINS} bins of equal width of the confidence"),
)


def scores(output_NC: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """Each column as a tensor without dimensions, from outputs (N, C) before the softmax and classes (N,)."""
    log_p_NC = torch.log_softmax(output_NC.to(torch.float64), dim=-1)
    p_NC = log_p_NC.exp()
    one_hot_NC = F.one_hot(labels_N, p_NC.shape[1])
    confidence_N, predicted_N = p_NC.max(-1)
    bin_N = (confidence_N * BINS).ceil().long().clamp(1, BINS) - 1
    gap_N = (predicted_N == labels_N).to(p_NC.dtype) - confidence_N
    return {
        "test_nll": -log_p_NC.gather(1, labels_N[:, None]).mean(),
        "test_brier": (p_NC - one_hot_NC).square().sum(-1).mean(),
        "test_ece": (gap_N @ F.one_hot(bin_N, BINS).to(p_NC.dtype)).abs().sum() / len(labels_N),
    }


@torch.no_grad()
def function(snapshot: Snapshot) -> Values:
    """The columns; null for regression, without a test set, or where an output is not finite."""
    data = snapshot.data
    nothing: Values = {column.name: None for column in COLUMNS}
    if data.classes is None or not len(data.x_test):
        return nothing
    with snapshot.network.evaluating():
        output_NC = torch.cat([snapshot.network(snapshot.params, snapshot.buffers, x_B)
                               for x_B in torch.split(data.x_test, CHUNK)])
    return values(scores(output_NC, data.y_test)) if bool(output_NC.isfinite().all()) else nothing


MEASUREMENT = Measurement("predictions", "steps", COLUMNS, function)
