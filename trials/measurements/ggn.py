"""The generalized Gauss-Newton matrix: the part of the Hessian that is not the network's own curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.hessian import TOLERANCE
from trials.measurements.lanczos import lanczos
from trials.measurements.nulls import values
from trials.measurements.objective import Objective, objective
from trials.measurements.trace import estimate, layer_blocks


class GaussNewton:
    """``matrix(v)`` is G v, G = mean over samples of J^T L'' J: J the Jacobian (C, P) of the outputs of a sample, L''
    the Hessian (C, C) of its loss in the outputs (Schraudolph 2002). For cross-entropy and for half the squared
    distance G is the Fisher information. Exact for every loss.

    J v is got as the derivative by u of the linear function u -> (J^T u) . v, so that a model need only be
    differentiable in reverse, as for training; both graphs are kept between products.
    """

    def __init__(self, of: Objective) -> None:
        self._leaf = of.theta_P.clone().requires_grad_()
        self._output_nC = of.outputs(self._leaf, of.x_n)
        self._u_nC = torch.zeros_like(self._output_nC).requires_grad_()
        self._pulled_P: Tensor = torch.autograd.grad(self._output_nC, self._leaf, self._u_nC, create_graph=True)[0]
        self._at_nC = self._output_nC.detach().requires_grad_()
        loss = of.data.loss(self._at_nC, of.target_nC).mean()
        self._slope_nC: Tensor = torch.autograd.grad(loss, self._at_nC, create_graph=True)[0]

    def __call__(self, v: Tensor) -> Tensor:
        jv_nC = torch.autograd.grad(self._pulled_P, self._u_nC, v, retain_graph=True)[0]
        curved_nC = torch.autograd.grad(self._slope_nC, self._at_nC, jv_nC, retain_graph=True)[0]
        return torch.autograd.grad(self._output_nC, self._leaf, curved_nC, retain_graph=True)[0]


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    of = snapshot.shared(objective)
    matrix, stream = GaussNewton(of), snapshot.stream("ggn")
    start = stream.at(0).normal((len(of.theta_P),), of.theta_P.dtype)
    space = lanczos(matrix, start, settled=lambda found: found.converged(1, 0, TOLERANCE))
    found = estimate(matrix, space, stream.at(1), layer_blocks(of.shapes))
    return values({"ggn_max": space.values_M[0], "ggn_trace": found.trace, "ggn_trace_error": found.trace_error})


MEASUREMENT = Measurement(
    group="curvature",
    table="steps",
    columns=(
        number("ggn_max", "largest eigenvalue of the generalized Gauss-Newton matrix (probe set, no knobs)"),
        number("ggn_trace", "its trace, estimated"),
        number("ggn_trace_error", "standard error of its trace, from 8 random probes"),
    ),
    function=measure,
)
