"""Gradients of single samples, some at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import grad, vmap

from trials.measurements.objective import Objective

NUMBERS = 2**24  # of a chunk: 128 MiB


def chunks(of: Objective) -> Iterator[Tensor]:
    """The gradients of the objective's samples in their order, in chunks (B, P) of at most ``NUMBERS`` numbers.

    By vmap; one by one for a model that vmap cannot do (one that branches on its activations, say).
    """
    size = max(1, NUMBERS // len(of.theta_P))
    vectorized = True
    for x_B, target_BC in zip(torch.split(of.x_n, size), torch.split(of.target_nC, size), strict=True):
        if vectorized:
            try:
                chunk_BP: Tensor = vmap(grad(of.sample_loss), in_dims=(None, 0, 0))(of.theta_P, x_B, target_BC)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError):  # what torch.func raises for what it cannot transform
                vectorized = False
        if not vectorized:
            chunk_BP = torch.stack([_gradient(of, x, target_C)
                                    for x, target_C in zip(x_B, target_BC, strict=True)])
        yield chunk_BP


def _gradient(of: Objective, x: Tensor, target_C: Tensor) -> Tensor:
    leaf = of.theta_P.clone().requires_grad_()
    return torch.autograd.grad(of.sample_loss(leaf, x, target_C), leaf)[0]
