"""Trace and Frobenius norm of the Hessian, by random probes, a few layers at a time, outside a Krylov space.

Standard deviation of the estimate of the trace times the root of the products spent, on the MLP 64-512-512-10 on digits
after 0, 100 and 1,500 steps of SGD (trace 30, 23, 0.6): Hutchinson 49, 8.6, 0.22; Hutch++ 50, 8.4, 0.048; outside
the Krylov space 46, 5.9, 0.035; that by blocks of layers, as here, 6.1, 1.5, 0.037.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.hessian import extremes, hessian
from trials.measurements.lanczos import Krylov, Operator
from trials.measurements.nulls import values
from trials.measurements.objective import objective
from trials.streams import Stream

PROBES = 8
BLOCKS = 4  # at most; so the trace of the Hessian costs up to PROBES * BLOCKS products
WHOLE = (slice(None),)


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


def samples(operator: Operator, space: Krylov, stream: Stream, probes: int,
            blocks: Sequence[slice] = WHOLE) -> tuple[Tensor, Tensor]:
    """``probes`` independent, unbiased samples of tr(A) and of norm(A)_F^2, each (probes,), for a product a block each.

    With Q the basis of ``space``, R = I - Q Q^T and z of random signs, z^T R A R z is a sample of tr(R A R) and
    norm(A R z)^2 one of norm(A R)_F^2 (Hutchinson 1990); what is left, tr(Q^T A Q) and norm(A Q)_F^2, is known from
    making the space, which takes its large eigenvalues out of the variance. So this is Hutch++ (Meyer, Musco, Musco &
    Woodruff 2021, arXiv 2010.09649) with a sketch that costs nothing (Chen & Hallman 2023, arXiv 2205.01736).

    The entries of R A R between two ``blocks`` of the parameters add noise to the trace and nothing else. With z = sum
    of its parts z_b, the trace's sample is sum_b z_b^T R A R z_b, without them.
    """
    traces, squares = [], []
    for i in range(probes):
        sign = (stream.at(i).uniform((space.basis_MP.shape[1],), space.basis_MP.dtype) - 0.5).sign()
        trace, image = space.trace, torch.zeros_like(sign)
        for block in blocks:
            part = torch.zeros_like(sign)
            part[block] = sign[block]
            part = space.project_out(part)
            product = operator(part)
            trace, image = trace + part @ product, image + product
        traces.append(trace)
        squares.append(space.square + image @ image)
    return torch.stack(traces), torch.stack(squares)


def estimate(operator: Operator, space: Krylov, stream: Stream, blocks: Sequence[slice]) -> Traces:
    """Means of ``PROBES`` samples; the standard errors are those of a mean of so many: an interval of 95% is 2.36 of
    them wide on each side (Student's t with 7 degrees of freedom)."""
    numbers = []
    for sample in samples(operator, space, stream, PROBES, blocks):
        numbers += [sample.mean(), sample.std() / PROBES**0.5]
    return Traces(*numbers)


def layer_blocks(shapes: Mapping[str, torch.Size]) -> list[slice]:
    """Up to ``BLOCKS`` slices of the vector of all parameters: as many consecutive layers in each, or one more."""
    sizes = [sum(shapes[name].numel() for name in names)
             for _, names in groupby(shapes, key=lambda name: name.rpartition(".")[0])]
    count = min(BLOCKS, len(sizes))
    ends = [sum(sizes[: (i * len(sizes)) // count]) for i in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def traces(snapshot: Snapshot) -> Traces:
    """Of the Hessian on the probe set."""
    return estimate(snapshot.shared(hessian), snapshot.shared(extremes).space, snapshot.stream("trace"),
                    layer_blocks(snapshot.shared(objective).shapes))


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
        number("hessian_trace_error", "standard error of the trace, from 8 random probes"),
        number("hessian_frobenius", "Frobenius norm of that Hessian, estimated"),
        number("hessian_frobenius_error", "standard error of the Frobenius norm, from the same probes"),
    ),
    function=measure,
)
