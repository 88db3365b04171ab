"""Muon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.fields import real
from trials.optimizers.adam import AdamW
from trials.optimizers.base import OPTIMIZERS, Params, State
from trials.optimizers.decay import in_type

_ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # chosen for a steep slope at 0: singular values end between 0.7 and 1.2
_EPS = 1e-7


@OPTIMIZERS.register("muon")
@dataclass(frozen=True)
class Muon(AdamW):
    """b <- m b + (1 - m) g;  w <- w - lr sqrt(max(1, rows / columns)) O(m b + (1 - m) g), where O brings every singular
    value near 1 (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    Here for matrix-like parameters, the first and the last layer's among them; a convolution's kernel is flattened to
    (out, in * height * width). Vector-like parameters are AdamW's. Weight decay is AdamW's for both. Conventions are
    those of ``torch.optim.Muon``, but O is computed in the parameter's own type, not in bfloat16.
    """

    weight_decay: float = real(0.1, low=0, help="weight decay wd")
    momentum: float = real(0.95, low=0, high=1, open_high=True, help="momentum m of matrices, Nesterov's")

    def init(self, params: Params) -> State:
        """Adam's slots; ``mean`` of a matrix is the buffer b, and ``square`` holds the vectors alone."""
        state = super().init(params)
        return {**state, "square": {name: v for name, v in state["square"].items() if v.ndim < 2}}

    def update(self, params: Params, grads: Params, state: State) -> None:
        super().update({name: p for name, p in params.items() if p.ndim < 2}, grads, state)
        for name, p in params.items():
            if p.ndim >= 2:
                fresh, buffer = self.decayed(p, grads[name]) * (1.0 - self.momentum), state["mean"][name]
                buffer.mul_(in_type(self.momentum, p)).add_(fresh)
                matrix = (fresh + buffer * self.momentum).flatten(1)
                size = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
                p.sub_(orthogonalized(matrix).reshape(p.shape) * (self.rate(p) * size))


def orthogonalized(matrix: Tensor) -> Tensor:
    """U f(S) V^T of the matrix U S V^T divided by its Frobenius norm, where f is five times s <- a s + b s^3 + c s^5 (a
    Newton-Schulz iteration): near U V^T, save for singular values that are tiny beside the norm, which stay small."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / torch.linalg.vector_norm(x).clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    result: Tensor = x.mT if tall else x
    return result
