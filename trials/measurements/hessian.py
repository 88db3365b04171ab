"""The extreme eigenvalues of the Hessian of the training loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.lanczos import Krylov, Operator, lanczos
from trials.measurements.nulls import values
from trials.measurements.objective import Objective, objective
from trials.tasks.base import Data

TOP = 5
# Classes beyond these are not followed: the top of a spectrum of so many converges too slowly.
MOST = 20
# Of the residuals, relative to the largest absolute eigenvalue. The error of an eigenvalue is the residual's square
# over the gap to the next, so mostly far smaller.
TOLERANCE = 1e-3


class Hessian:
    """``hessian(v)`` is H v, H the Hessian of an objective at its parameters.

    The graph of the gradient is built once and kept: a product is one backward pass through it (Pearlmutter 1994).
    """

    def __init__(self, of: Objective) -> None:
        self._leaf = of.theta_P.clone().requires_grad_()
        self._gradient: Tensor = torch.autograd.grad(of.loss(self._leaf), self._leaf, create_graph=True)[0]

    @property
    def gradient(self) -> Tensor:
        """The gradient at the same parameters, (P,)."""
        return self._gradient.detach()

    def __call__(self, v: Tensor) -> Tensor:
        return torch.autograd.grad(self._gradient, self._leaf, v, retain_graph=True)[0]


@dataclass(frozen=True, eq=False)
class Extremes:
    """``top_k`` the k largest eigenvalues, descending, with multiplicity; ``vectors_kP`` their orthonormal vectors;
    ``bottom`` the smallest eigenvalue; ``residuals_k`` and ``residual_bottom`` norm(H v - lambda v) of each; ``space``
    the Krylov space of the search."""

    top_k: Tensor
    vectors_kP: Tensor
    bottom: Tensor
    residuals_k: Tensor
    residual_bottom: Tensor
    space: Krylov


def hessian(snapshot: Snapshot) -> Hessian:
    """The Hessian on the probe set."""
    return Hessian(snapshot.shared(objective))


def top_count(data: Data) -> int:
    """How many eigenvectors the top space has: as many as there are classes, at most MOST; TOP for a regression."""
    return TOP if data.classes is None else min(data.classes, MOST)


def extremes(snapshot: Snapshot) -> Extremes:
    """The extreme eigenvalues of the Hessian on the probe set, to ``TOLERANCE``: max(TOP, k) of a top space of k."""
    operator, theta_P = snapshot.shared(hessian), snapshot.shared(objective).theta_P
    count = max(TOP, top_count(snapshot.data))
    starts = [snapshot.stream("hessian").at(i).normal((len(theta_P),), theta_P.dtype) for i in range(count + 1)]
    return find_extremes(operator, starts, TOLERANCE)


def find_extremes(operator: Operator, starts: list[Tensor], tolerance: float) -> Extremes:
    """The k largest, all if there are no more, and the smallest eigenvalue. ``starts`` are k + 1 random vectors (P,).

    A search from one vector sees each multiple eigenvalue once (and multi-output linear models have them). So the rest
    of the space is searched for one that was missed, from a new vector, until there is none: mostly once, in vain.
    """
    count = len(starts) - 1
    space = lanczos(operator, starts[0], settled=lambda found: found.converged(count, 1, tolerance))
    top, residuals = space.values_M[:count], space.residuals_M[:count]
    vectors, bottom = space.vectors(count), space.values_M[-1]
    residual_bottom, close = space.residuals_M[-1], tolerance * space.values_M.abs().max()
    for start in starts[1:]:
        if vectors.shape[0] == vectors.shape[1]:
            break
        found = vectors

        def rest(v: Tensor, found: Tensor = found) -> Tensor:
            image = operator(v - (found @ v) @ found)
            return image - (found @ image) @ found

        missed = lanczos(rest, start - (found @ start) @ found, settled=lambda seen: seen.converged(1, 0, tolerance))
        value, vector = missed.values_M[:1], missed.vectors(1)
        if len(top) == count and not bool(value > top[-1] + close):
            break
        residual = torch.linalg.vector_norm(operator(vector[0]) - value * vector[0])
        top, order = torch.cat([top, value]).sort(descending=True)
        top, order = top[:count], order[:count]
        residuals, vectors = torch.cat([residuals, residual[None]])[order], torch.cat([vectors, vector])[order]
    return Extremes(top, vectors, bottom, residuals, residual_bottom, space)


def measure(snapshot: Snapshot) -> Values:
    """``hessian_max``, ``hessian_2`` ..., ``hessian_min`` and ``hessian_residual``."""
    found = snapshot.shared(extremes)
    names = [column.name for column in MEASUREMENT.columns]
    rows = dict(zip(names[:TOP], found.top_k, strict=False))
    return {**dict.fromkeys(names), **values({
        **rows, "hessian_min": found.bottom,
        "hessian_residual": torch.maximum(found.residuals_k[:TOP].max(), found.residual_bottom)})}


MEASUREMENT = Measurement(
    group="curvature",
    table="steps",
    columns=(
        number("hessian_max", "largest eigenvalue of the Hessian of the training loss (probe set of at most 512 "
               "samples, no knobs)"),
        *(number(f"hessian_{i}", f"its eigenvalue number {i} from the top") for i in range(2, TOP + 1)),
        number("hessian_min", "its smallest eigenvalue"),
        number("hessian_residual", "largest norm(H v - lambda v) among these: each is that close to an eigenvalue"),
    ),
    function=measure,
)
