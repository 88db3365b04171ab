"""How much of the gradient lies in the space of the Hessian's top eigenvectors.

Gur-Ari, Roberts & Dyer 2018 (arXiv 1812.04754): gradient descent soon moves mostly in a small space that barely
changes. The change over time needs the space of an earlier step, which a snapshot does not have; whoever keeps
``top_space`` of two steps gets it from ``overlap``.
"""

from __future__ import annotations

from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.hessian import TOP, extremes, hessian
from trials.measurements.nulls import values


def top_space(snapshot: Snapshot) -> Tensor:
    """Orthonormal eigenvectors of the ``TOP`` largest eigenvalues of the Hessian on the probe set, (k, P) float64."""
    return snapshot.shared(extremes).vectors_kP


def overlap(space_kP: Tensor, other_kP: Tensor) -> Tensor:
    """norm(U V^T)_F^2 / k of two orthonormal bases: 1 for the same space, 0 for orthogonal ones, k / P on average for
    random ones."""
    return (space_kP @ other_kP.T).square().sum() / len(space_kP)


def fraction(vector_P: Tensor, space_kP: Tensor) -> Tensor:
    """Squared norm of the vector's part in the space over its squared norm."""
    return (space_kP @ vector_P).square().sum() / vector_P.square().sum()


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    return values({"gradient_top_fraction": fraction(snapshot.shared(hessian).gradient, top_space(snapshot))})


MEASUREMENT = Measurement(
    group="gradients",
    table="steps",
    columns=(
        number("gradient_top_fraction", "fraction of the squared norm of the gradient (probe set, no knobs) in the "
               f"space of the Hessian's top {TOP} eigenvectors"),
    ),
    function=measure,
)
