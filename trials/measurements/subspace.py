"""How much of the gradient lies in the space of the Hessian's top eigenvectors, and how much of that space stays.

Gur-Ari, Roberts & Dyer 2018 (arXiv 1812.04754): gradient descent soon moves mostly in a small space that barely
changes, of as many dimensions as there are classes. How far a space is followed depends on the steps that are
measured: log-spaced ones are ever farther apart. Where the last of the top eigenvalues and the next are close, their
vectors mix, and the overlap falls by up to 1 / k.
"""

from __future__ import annotations

from torch import Tensor

from trials.columns import number, whole
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.hessian import MOST, TOP, extremes, hessian, top_count
from trials.measurements.nulls import undefined, values


def top_space(snapshot: Snapshot) -> Tensor:
    """Orthonormal eigenvectors of the k = ``top_count`` largest eigenvalues of the Hessian on the probe set, (k, P)
    float64."""
    return snapshot.shared(extremes).vectors_kP[:top_count(snapshot.data)]


def overlap(space_kP: Tensor, other_kP: Tensor) -> Tensor:
    """norm(U V^T)_F^2 / k of two orthonormal bases: 1 for the same space, 0 for orthogonal ones, k / P on average for
    random ones."""
    return (space_kP @ other_kP.T).square().sum() / len(space_kP)


def fraction(vector_P: Tensor, space_kP: Tensor) -> Tensor:
    """Squared norm of the vector's part in the space over its squared norm."""
    return (space_kP @ vector_P).square().sum() / vector_P.square().sum()


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    space_kP, gradient_P = top_space(snapshot), snapshot.shared(hessian).gradient
    before_kP = snapshot.kept.get("top_space")
    if before_kP is not None and len(before_kP) != len(space_kP):  # of a checkpoint in which k was another
        before_kP = None
    snapshot.kept["top_space"] = space_kP
    return {"gradient_top_k": len(space_kP), **values({
        "gradient_top_fraction": fraction(gradient_P, space_kP),
        "subspace_overlap": undefined(space_kP) if before_kP is None else overlap(space_kP, before_kP)})}


MEASUREMENT = Measurement(
    group="gradients",
    table="steps",
    columns=(
        whole("gradient_top_k", "k, the dimension of the Hessian's top space: the number of classes, at most "
              f"{MOST}; {TOP} for a regression, and in results without this column"),
        number("gradient_top_fraction", "fraction of the squared norm of the gradient (probe set, no knobs) in the "
               "space of the Hessian's top k eigenvectors"),
        number("subspace_overlap", "overlap norm(U V^T)_F^2 / k of that space with the one at the trial's previous "
               "measured step: 1 is the same space; null at the first"),
    ),
    function=measure,
)
