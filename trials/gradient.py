"""Value and gradient of a function of parameters, where vmap may follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trials.optimizers.base import Params

levels: Any
try:
    from torch._C import _functorch as levels
except ImportError:
    levels = None


def value_and_gradient(function: Callable[[Params], Tensor], params: Params) -> tuple[Tensor, Params]:
    """What ``torch.func.grad_and_value`` gives, the other way round; a parameter that is not used has gradient 0.

    torch's own imports its compiler before it differentiates, which takes each process more than a second; so where
    the level of differentiation below it can be had, it is taken directly.
    """
    if levels is None:
        grads, value = torch.func.grad_and_value(function)(params)
        return value, grads
    level = levels._grad_increment_nesting()
    try:
        with torch.enable_grad():
            leaves = {name: _leaf(value, level) for name, value in params.items()}
            value = function(leaves)
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True,
                                        create_graph=True)  # so that this can be differentiated again
        grads = {name: levels._unwrap_for_grad(grad, level) for name, grad in zip(params, found, strict=True)}
        return levels._unwrap_for_grad(value, level), grads
    finally:
        levels._grad_decrement_nesting()


def _leaf(value: Tensor, level: int) -> Tensor:
    before = levels.get_inplace_requires_grad_allowed()
    levels.set_inplace_requires_grad_allowed(True)
    try:
        leaf: Tensor = levels._wrap_for_grad(value, level).requires_grad_()
        return leaf
    finally:
        levels.set_inplace_requires_grad_allowed(before)
