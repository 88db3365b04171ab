"""Value and gradient of a function of parameters and buffers, where vmap may follow."""

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


def transforming() -> bool:
    """Whether this is called by a function that torch.func transforms (vmap, grad ...)."""
    return levels is None or levels.peek_interpreter_stack() is not None


def value_and_gradient(function: Callable[[Params, Params], Tensor], params: Params, buffers: Params,
                       ) -> tuple[Tensor, Params]:
    """What ``torch.func.grad_and_value`` gives, the other way round; a parameter that is not used has no gradient. What
    the function does to the buffers it is given, in place or by a new tensor, is done to ``buffers`` in place.

    torch's own imports its compiler before it differentiates, which takes each process more than a second; so where
    the level of differentiation below it can be had, it is taken directly.
    """
    if levels is None:
        def with_buffers(leaves: Params) -> tuple[Tensor, Params]:
            held = {name: buffer.clone() for name, buffer in buffers.items()}
            return function(leaves, held), held
        grads, (value, after) = torch.func.grad_and_value(with_buffers, has_aux=True)(params)
        _put(buffers, after)
        return value, grads
    level = levels._grad_increment_nesting()
    try:
        with torch.enable_grad():
            leaves = {name: _leaf(value, level) for name, value in params.items()}
            given = {name: levels._wrap_for_grad(buffer, level) for name, buffer in buffers.items()}
            held = dict(given)
            value = function(leaves, held)
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True,
                                        create_graph=True)  # so that this can be differentiated again
        grads = {name: levels._unwrap_for_grad(grad, level) for name, grad in zip(params, found, strict=True)
                 if grad is not None}
        after = {name: levels._unwrap_for_grad(buffer.detach(), level) for name, buffer in held.items()
                 if buffer is not given[name]}
        value = levels._unwrap_for_grad(value, level)
    finally:
        levels._grad_decrement_nesting()
    _put(buffers, after)
    return value, grads


def _put(buffers: Params, after: Params) -> None:
    for name, value in after.items():
        if (value.shape, value.dtype) != (buffers[name].shape, buffers[name].dtype):
            raise RuntimeError(f"buffer {name} changes its shape or type")
        buffers[name].copy_(value)


def _leaf(value: Tensor, level: int) -> Tensor:
    before = levels.get_inplace_requires_grad_allowed()
    levels.set_inplace_requires_grad_allowed(True)
    try:
        leaf: Tensor = levels._wrap_for_grad(value, level).requires_grad_()
        return leaf
    finally:
        levels.set_inplace_requires_grad_allowed(before)
