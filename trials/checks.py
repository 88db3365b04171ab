"""The first passes of a user's model: whether its output is one that trials can be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trials.errors import UserError
from trials.network import Network, tensors
from trials.optimizers.base import Params
from trials.tasks.base import Data

_GRAD = vars(torch._C.TensorBase)["grad"]
UNSOUND = "the output of the model is not finite before any training"


@torch.enable_grad()
def check_network(network: Network, data: Data, batch_size: int) -> bool:
    """Take a pass in evaluation mode and one, of ``batch_size`` samples, in training mode; returns whether the backward
    pass depends on the tensors that are in the module then, as that of a recomputed activation does, or of a hook that
    reads a weight. Raises UserError where its output is not to be trained on."""
    own: Params = dict(network.module.named_parameters())
    params, buffers = tensors(network.module)
    params = {name: value.requires_grad_() for name, value in params.items()}
    x_B = data.x_train[:2]
    with network.evaluating(), network.differentiating():
        output = network(params, buffers, x_B)
        for name in network.strangers():
            raise UserError(f"trial.model: its first forward pass makes {name}, which so is not trained; make it in "
                            "__init__, or use torch's lazy modules, such as nn.LazyLinear")
        _check_output(output, len(x_B), data)
        if output.requires_grad:
            _gradient(output, params, own)
    x_B = data.x_train[:batch_size]
    with network.forgetting():
        held = _copies(buffers)
        with _NoGrad({id(value): name for name, value in params.items()}):
            output = network(params, held, x_B)
        if not output.requires_grad:
            raise UserError("trial.model: its output has no gradient; it must follow from the parameters by torch "
                            "operations, without no_grad() and detach()")
        others = {name: (0.3 - 1.7 * value.detach()).requires_grad_() for name, value in params.items()}
        with network.holding(params, _copies(held)):
            here = network.hooked(_gradient(output, params, own))
        with network.holding(others, _copies(held)):
            there = network.hooked(_gradient(output, params, own))
    return not all(torch.allclose(here[name], there[name], rtol=1e-3, atol=0.0, equal_nan=True) for name in params)


class _NoGrad(TorchFunctionMode):
    """Raises UserError where code reads ``.grad`` of one of the tensors ``names``, by their ids."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names = names

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__self__", None) is _GRAD and id(args[0]) in self._names:
            raise UserError(f"trial.model: forward reads .grad of {self._names[id(args[0])]}, which trials do not fill")
        return func(*args, **(kwargs or {}))


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


def _gradient(output: Tensor, params: Params, own: Params) -> Params:
    """That of the sum of ``output``. Raises UserError where it follows from the module's ``own`` parameters."""
    for value in (*params.values(), *own.values()):
        value.grad = None
    output.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    if name := next((name for name, value in own.items() if value.grad is not None), None):
        raise UserError(f"trial.model: forward uses what was made of {name} when the model was built; make it of "
                        f"{name} in each forward pass, so that training reaches it")
    return {name: torch.zeros_like(value) if value.grad is None else value.grad.to_dense()
            for name, value in params.items()}


def _copies(buffers: Params) -> Params:
    return {name: value.clone() for name, value in buffers.items()}
