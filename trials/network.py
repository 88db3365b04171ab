"""A torch module as a pure function of its parameters, with a tap at every hidden nonlinearity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules import activation

from trials.optimizers.base import Params

Tap = Callable[[Tensor, int], Tensor]  # (output of a nonlinearity, its number in the forward pass) -> what goes on
NONLINEARITIES = tuple(
    getattr(activation, name) for name in activation.__all__ if name not in ("MultiheadAttention", "Softmax2d"))


class Network:
    """``network(params, x)`` is the module's output with these parameters.

    ``tap`` sees, and may change, the output of each hidden nonlinearity in the order in which the forward pass reaches
    it: a nonlinearity is a module of ``torch.nn``'s activation classes. Parameters stay outside, so that a pack can
    stack them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._tap: Tap | None = None
        self._reached = 0
        sites = [child for child in module.modules() if isinstance(child, NONLINEARITIES)]
        self.has_nonlinearities = bool(sites)
        for site in sites:
            site.register_forward_hook(self._on_output)

    def parameters(self) -> Params:
        """A copy of the module's own parameters, by name."""
        return {name: value.detach().clone() for name, value in self.module.named_parameters()}

    def __call__(self, params: Params, x: Tensor, tap: Tap | None = None) -> Tensor:
        self._tap, self._reached = tap, 0
        try:
            output: Tensor = functional_call(self.module, params, (x,))
        finally:
            self._tap = None
        return output

    def _on_output(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if self._tap is None:
            return None
        site, self._reached = self._reached, self._reached + 1
        return self._tap(output, site)
