"""How heavy the tail of the gradients' norms is."""

from __future__ import annotations

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.gradient_noise import gradients
from trials.measurements.nulls import undefined, values

FRACTION = 0.1  # of the samples that count as tail
SMALLEST_TAIL = 10  # with fewer the estimate is off by more than a third


def tail_index(norms_n: Tensor) -> tuple[Tensor, Tensor]:
    """Hill's estimate of a in P(norm > x) ~ x^-a and its standard error a / sqrt(k), from the k = n / 10 largest.

    1 / a = mean over these of ln(norm / next smaller norm), that is the (k + 1)-th largest (Hill 1975). Any sample has
    a number; it means a power law only where the law holds, and is large for light tails. NaN for k < 10 and where the
    tail is not positive or all equal.
    """
    k = int(FRACTION * len(norms_n))
    if k < SMALLEST_TAIL:
        return undefined(norms_n), undefined(norms_n)
    largest = norms_n.sort(descending=True).values[: k + 1]
    logs = (largest[:-1] / largest[-1]).log().mean()
    index = torch.where((largest[-1] > 0) & (logs > 0), 1 / logs, torch.nan)
    return index, index / k**0.5


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    index, error = tail_index(snapshot.shared(gradients).norms_n)
    return values({"gradient_tail_index": index, "gradient_tail_index_error": error})


MEASUREMENT = Measurement(
    group="gradients",
    table="steps",
    columns=(
        number("gradient_tail_index", "Hill estimate of a in P(norm > x) ~ x^-a, of the norms of the gradients of "
               "single samples, from the largest tenth"),
        number("gradient_tail_index_error", "its standard error if the tail is a power law, a / sqrt(k)"),
    ),
    function=measure,
)
