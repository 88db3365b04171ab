"""Orthogonality penalty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.fields import real
from trials.knobs.base import KNOBS, Knob, Moment
from trials.optimizers.base import Params


@KNOBS.register("orthogonal")
@dataclass(frozen=True)
class Orthogonal(Knob):
    """strength * sum over weight matrices of norm(W W^T - I)_F^2, which is the sum of (s^2 - 1)^2 over the singular
    values s (Brock et al. 2017, arXiv 1609.07093; Bansal et al. 2018, arXiv 1810.09102).

    A matrix with more rows than columns is transposed first: its rows cannot all be orthogonal. Every parameter of two
    or more dimensions counts, the output layer too; a convolution's kernel is flattened to (out, in * height * width),
    which is not the orthogonality of the convolution as an operator.
    """

    strength: float = real(1e-4, help="strength; a negative one drives the matrices away from orthogonal")

    def penalty(self, params: Params, moment: Moment) -> Tensor:
        return self.strength * sum((_distance(w.flatten(1)) for w in params.values() if w.ndim >= 2), torch.zeros(()))


def _distance(w: Tensor) -> Tensor:
    rows, cols = w.shape
    gram = w @ w.T if rows <= cols else w.T @ w
    return (gram - torch.eye(len(gram), dtype=w.dtype, device=w.device)).square().sum()
