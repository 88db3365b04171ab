"""Size, noise and coherence of the gradients of single samples.

g_i is the gradient of sample i's loss, G their mean over the training set of N, Sigma their covariance over it. From
n samples of the N, drawn without replacement, with s^2 = (sum norm(g_i)^2 - n norm(mean g)^2) / (n - 1),

    tr(Sigma) = (1 - 1/N) s^2,    norm(G)^2 = norm(mean g)^2 - (1/n - 1/N) s^2

are unbiased, and exact for n = N. Where every batch is fresh, N is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.nulls import values
from trials.measurements.objective import objective
from trials.measurements.sample_gradients import chunks


@dataclass(frozen=True, eq=False)
class Gradients:
    """Of the n probe samples: ``norms_n``; ``mean_P``, the mean gradient; ``direction_P``, the mean of g / norm(g) over
    the samples whose gradient is not 0."""

    norms_n: Tensor
    mean_P: Tensor
    direction_P: Tensor


def gradients(snapshot: Snapshot) -> Gradients:
    """Norms and means of the gradients of the probe samples, which are never all in memory."""
    of = snapshot.shared(objective)
    total, directions = torch.zeros_like(of.theta_P), torch.zeros_like(of.theta_P)
    norms = []
    for grads_BP in chunks(of):
        norms.append(torch.linalg.vector_norm(grads_BP, dim=1))
        total += grads_BP.sum(0)
        directions += torch.where(norms[-1] > 0, 1 / norms[-1], 0.0) @ grads_BP
    norms_n = torch.cat(norms)
    return Gradients(norms_n, total / len(norms_n), directions / (norms_n > 0).sum())


def moments(mean_square: Tensor, square_of_mean: Tensor, n: Tensor, population: Tensor) -> tuple[Tensor, Tensor]:
    """(tr(Sigma), norm(G)^2), unbiased, from the mean of the squared norms and the squared norm of the mean of ``n``
    vectors out of ``population``."""
    spread = (mean_square - square_of_mean) * n / (n - 1)
    return (1 - 1 / population) * spread, square_of_mean - (1 / n - 1 / population) * spread


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    found, theta_P = snapshot.shared(gradients), snapshot.shared(objective).theta_P
    norms_n, mean_P, direction_P = found.norms_n, found.mean_P, found.direction_P
    samples = len(snapshot.data.x_train) if snapshot.data.fresh is None else math.inf
    n, population = (torch.full_like(norms_n[0], value) for value in (len(norms_n), samples))
    mean_square = norms_n.square().mean()
    noise, square = moments(mean_square, mean_P @ mean_P, n, population)
    moving = (norms_n > 0).mean(dtype=norms_n.dtype)  # the fraction of samples that have a direction
    directions = moments(torch.ones_like(n), direction_P @ direction_P, n * moving, population * moving)
    return values({
        "full_gradient_norm": square.sqrt(),
        "gradient_noise_scale": torch.where(square > 0, noise / square, torch.nan),
        "gradient_coherence": square / mean_square,
        "gradient_m_coherence": population * square / mean_square,
        "gradient_direction_variance": directions[0],
        "gradient_weight_cosine": -(mean_P @ theta_P) / (torch.linalg.vector_norm(mean_P)
                                                         * torch.linalg.vector_norm(theta_P)),
    })


MEASUREMENT = Measurement(
    group="gradients",
    table="steps",
    columns=(
        number("full_gradient_norm", "norm of the gradient G of the training loss without knobs; root of an unbiased "
               "estimate of its square, null where that is negative"),
        number("gradient_noise_scale", "tr(Sigma) / norm(G)^2, Sigma the covariance of the gradients of single samples "
               "(arXiv 1812.06162); null where norm(G)^2 is estimated as 0 or less", "sample"),
        number("gradient_coherence", "norm(G)^2 / mean squared norm of the gradients of single samples"),
        number("gradient_m_coherence", "training samples times that: 1 for orthogonal gradients, all for equal ones "
               "(arXiv 2008.01217); null for fresh data", "sample"),
        number("gradient_direction_variance", "variance of g / norm(g) over single samples: 0 if all point one way, 1 "
               "if they cancel"),
        number("gradient_weight_cosine", "cosine between the negative gradient of the training loss and the weights"),
    ),
    function=measure,
)
