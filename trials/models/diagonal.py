"""Diagonal linear network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trials.errors import UserError
from trials.fields import count, real
from trials.models.base import MODELS, Model


@MODELS.register("diagonal")
@dataclass(frozen=True)
class Diagonal(Model):
    """f(x) = x . (plus^L - minus^L), powers elementwise, both starting at alpha: a linear model whose gradient flow
    finds the solution of least L1 norm for small alpha and of least L2 norm for large (Woodworth et al. 2020,
    arXiv 2002.09277). Parameters ``plus`` and ``minus`` are (1, d); one output."""

    depth: int = count(2, low=1, help="power L")
    alpha: float = real(1.0, low=0, open_low=True, help="initial value of all parameters")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        if outputs != 1:
            raise UserError(f"model diagonal: has one output, but the task needs {outputs}; use a regression task with "
                            "one output, or the model mlp with depth 0")
        return _Net(math.prod(input_shape), self.depth, self.alpha)


class _Net(nn.Module):
    def __init__(self, inputs: int, depth: int, alpha: float) -> None:
        super().__init__()
        self.depth = depth
        self.plus = nn.Parameter(torch.full((1, inputs), alpha))
        self.minus = nn.Parameter(torch.full((1, inputs), alpha))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ (self.plus**self.depth - self.minus**self.depth).T
