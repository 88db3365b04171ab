"""How far the learning rate is from the edge of stability; 1 is the edge.

Gradient descent with learning rate lr and heavy-ball momentum m is stable along an eigenvector of the Hessian H iff
lr lambda < 2 (1 + m) (Cohen et al. 2021, arXiv 2103.00065). So ``sharpness_ratio`` = lr lambda_max / (2 (1 + m)).

SGD near a minimum that all samples share: each has a loss of its own, half a squared distance, with Hessian
H_i = J_i^T J_i there, and a batch of B drawn with replacement has the mean H_B. The covariance S of the error becomes
E (I - lr H_B) S (I - lr H_B), a symmetric map, whose spectral radius is therefore at least E norm(I - lr H_B)_F^2 / P.
Stability hence needs

    (lr / 2) E norm(H_B)_F^2 / tr(H) <= 1,    E norm(H_B)_F^2 = E norm(H_i)_F^2 / B + (1 - 1/B) norm(H)_F^2.

``batch_stability_ratio`` is the left side, measured on batches. With one output H_i has rank 1, so E norm(H_i)_F^2 =
E tr(H_i)^2 >= tr(H)^2, and stability needs

    (lr / 2) (tr(H) / B + (1 - 1/B) norm(H)_F^2 / tr(H)) <= 1,

whose left side is ``stability_ratio``. It is necessary, not sufficient, and only under what was said: squared loss, all
samples fitted, one output, draws with replacement, no momentum. With C outputs H_i has rank up to C, and tr(H) / B may
be too large by a factor of C; otherwise the number is defined, but 1 is no edge. lr tr(H) / 2 <= 1 is the case B = 1
alone. On Gaussian linear regression (H = I in d dimensions) the exact edge is lr = 2 / (1 + (d + 1) / B), where
``batch_stability_ratio`` is 1 and ``stability_ratio`` (1 + (d - 1) / B) / (1 + (d + 1) / B): the difference is the
variance of tr(H_i).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.batch_hessian import batches
from trials.measurements.hessian import extremes
from trials.measurements.nulls import undefined, values
from trials.measurements.trace import traces


def sharpness_ratio(lr: float, momentum: float, top: Tensor) -> Tensor:
    """lr lambda_max / (2 (1 + momentum))."""
    return lr * top / (2 * (1 + momentum))


def stability_ratio(lr: float, batch_size: int, trace: Tensor, square: Tensor) -> Tensor:
    """(lr / 2) (tr(H) / B + (1 - 1/B) norm(H)_F^2 / tr(H)), from ``trace`` tr(H) and ``square`` norm(H)_F^2; NaN where
    the trace is not positive."""
    ratio = (lr / 2) * (trace / batch_size + (1 - 1 / batch_size) * square / trace)
    return torch.where(trace > 0, ratio, torch.nan)


def batch_stability_ratio(lr: float, trace: Tensor, squares: Tensor) -> Tensor:
    """(lr / 2) E norm(H_B)_F^2 / tr(H), from ``squares``, norm(H_B)_F^2 of some batches; NaN where the trace is not
    positive."""
    return torch.where(trace > 0, (lr / 2) * squares.mean() / trace, torch.nan)


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    found, drawn, lr = snapshot.shared(traces), snapshot.shared(batches), snapshot.lr
    return values({
        "sharpness_ratio": sharpness_ratio(lr, snapshot.momentum, snapshot.shared(extremes).top_k[0]),
        "stability_ratio": stability_ratio(lr, snapshot.batch_size, found.trace, found.square),
        "batch_stability_ratio":
            undefined(found.trace) if drawn is None else batch_stability_ratio(lr, found.trace, drawn.square)})


MEASUREMENT = Measurement(
    group="curvature",
    table="steps",
    columns=(
        number("sharpness_ratio", "lr lambda_max / (2 (1 + momentum)); gradient descent with heavy-ball momentum is "
               "stable below 1; not for Adam"),
        number("stability_ratio", "(lr/2) (tr H / B + (1 - 1/B) norm(H)_F^2 / tr H); SGD is unstable above 1 given "
               "squared loss, one output, all samples fitted, batches with replacement, no momentum"),
        number("batch_stability_ratio", "(lr/2) mean of norm(H_B)_F^2 over 8 batches / tr H; the same for any number "
               "of outputs"),
    ),
    function=measure,
)
