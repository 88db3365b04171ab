"""Trace and Frobenius norm of the Hessian, by random probes outside the Krylov space of its eigenvalue search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.hessian import extremes, hessian
from trials.measurements.lanczos import Krylov, Operator
from trials.measurements.nulls import values
from trials.streams import Stream

PROBES = 16


@dataclass(frozen=True, eq=False)
class Traces:
    """Unbiased ``trace`` tr(A) and ``square`` norm(A)_F^2 with their standard errors; tensors without dimensions."""

    trace: Tensor
    trace_error: Tensor
    square: Tensor
    square_error: Tensor

    @property
    def frobenius(self) -> Tensor:
        """norm(A)_F."""
        return self.square.sqrt()

    @property
    def frobenius_error(self) -> Tensor:
        """Its standard error, to first order."""
        return self.square_error / (2 * self.frobenius)


def samples(operator: Operator, space: Krylov, stream: Stream, probes: int) -> tuple[Tensor, Tensor]:
    """``probes`` independent, unbiased samples of tr(A) and of norm(A)_F^2, each (probes,), for one product each.

    With Q the basis of ``space``, R = I - Q Q^T and z of random signs, z^T R A R z is a sample of tr(R A R) and
    norm(A R z)^2 one of norm(A R)_F^2 (Hutchinson 1990); what is left, tr(Q^T A Q) and norm(A Q)_F^2, is known from
    making the space, which takes its large eigenvalues out of the variance. So this is Hutch++ (Meyer, Musco, Musco &
    Woodruff 2021, arXiv 2010.09649) with a sketch that costs nothing (Chen & Hallman 2023, arXiv 2205.01736).
    """
    traces, squares = [], []
    for i in range(probes):
        sign = (stream.at(i).uniform((space.basis_MP.shape[1],), space.basis_MP.dtype) - 0.5).sign()
        z = space.project_out(sign)
        image = operator(z)
        traces.append(space.trace + z @ image)
        squares.append(space.square + image @ image)
    return torch.stack(traces), torch.stack(squares)


def estimate(operator: Operator, space: Krylov, stream: Stream, probes: int = PROBES) -> Traces:
    """Means of ``probes`` samples; the standard errors are those of a mean of so many: 95% is Student's t with
    probes - 1 degrees of freedom, 2.1 of them for 16."""
    numbers = []
    for sample in samples(operator, space, stream, probes):
        numbers += [sample.mean(), sample.std() / probes**0.5]
    return Traces(*numbers)


def traces(snapshot: Snapshot) -> Traces:
    """Of the Hessian on the probe set."""
    return estimate(snapshot.shared(hessian), snapshot.shared(extremes).space, snapshot.stream("trace"))


def measure(snapshot: Snapshot) -> Values:
    """The columns of ``MEASUREMENT``."""
    found = snapshot.shared(traces)
    return values({"hessian_trace": found.trace, "hessian_trace_error": found.trace_error,
                   "hessian_frobenius": found.frobenius, "hessian_frobenius_error": found.frobenius_error})


MEASUREMENT = Measurement(
    group="curvature",
    table="steps",
    columns=(
        number("hessian_trace", "trace of the Hessian of the training loss (probe set, no knobs), estimated"),
        number("hessian_trace_error", "standard error of the trace, from 16 random probes"),
        number("hessian_frobenius", "Frobenius norm of that Hessian, estimated"),
        number("hessian_frobenius_error", "standard error of the Frobenius norm, from the same probes"),
    ),
    function=measure,
)
