"""The first passes of a user's model: whether its output is one that trials can be trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trials.errors import UserError
from trials.network import Network, tensors
from trials.optimizers.base import Params
from trials.references import uses
from trials.tasks.base import Data

UNSOUND = "the output of the model is not finite before any training"


@torch.enable_grad()
def check_network(network: Network, data: Data, batch_size: int) -> bool:
    """Take a pass in evaluation mode and one, of ``batch_size`` samples, in training mode; returns whether the backward
    pass computes parts of the forward pass again. Raises UserError where its output is not to be trained on."""
    params, buffers = tensors(network.module)
    params = {name: value.requires_grad_() for name, value in params.items()}
    x_B = data.x_train[:2]
    with network.evaluating():
        output = network(params, buffers, x_B)
    if made := [name for name, _ in network.module.named_parameters() if name not in {**params, **buffers}]:
        raise UserError(f"trial.model: its first forward pass makes {made[0]}, which so is not trained; make it in "
                        "__init__, or use torch's lazy modules, such as nn.LazyLinear")
    _check_output(output, len(x_B), data)
    _check_parameters(output, network)
    x_B = data.x_train[:batch_size]
    with network.forgetting():
        held = _copies(buffers)
        output = network(params, held, x_B)
        if not output.requires_grad:
            raise UserError("trial.model: its output has no gradient; it must follow from the parameters by torch "
                            "operations, without no_grad() and detach()")
        _check_parameters(output, network)
        return _follows_from_the_module(output, network, params, held)


def _check_output(output: Any, samples: int, data: Data) -> None:
    """An output (B,) against targets (B, 1) would broadcast to a loss of something else, so the shape must be right."""
    if not isinstance(output, torch.Tensor):
        raise UserError(f"trial.model: gives a {type(output).__name__}; expected one tensor, such as the logits alone")
    shape, expected = tuple(output.shape), (samples, data.outputs)
    if shape != expected:
        raise UserError(f"trial.model: gives an output of shape {shape} for {samples} inputs; expected {expected}")
    if output.dtype != data.dtype:
        raise UserError(f"trial.model: gives an output of type {output.dtype}; expected {data.dtype}, as its input "
                        "has: end with .to(x.dtype)")
    if not bool(output.isfinite().all()):
        raise UserError(f"trial.model: {UNSOUND}")


def _check_parameters(output: Tensor, network: Network) -> None:
    if output.requires_grad and (name := uses(output, network.module)) is not None:
        raise UserError(f"trial.model: forward uses what was made of {name} when the model was built; make it of "
                        f"{name} in each forward pass, so that training reaches it")


def _follows_from_the_module(output: Tensor, network: Network, params: Params, buffers: Params) -> bool:
    """Whether the gradient of ``output`` depends on the tensors that are in the module when it is taken: it is not a
    number where these are not."""
    nan = {name: torch.full_like(value, torch.nan).requires_grad_() for name, value in params.items()}
    with network.holding(nan, _copies(buffers)):
        grads = torch.autograd.grad(output.sum(), list(params.values()), allow_unused=True, retain_graph=True)
    return not all(_is_finite(grad) for grad in grads) and _is_finite(output)


def _is_finite(value: Tensor | None) -> bool:
    return value is None or bool((value.to_dense() if value.is_sparse else value).isfinite().all())


def _copies(buffers: Params) -> Params:
    return {name: value.clone() for name, value in buffers.items()}
