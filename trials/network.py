"""A torch module as a pure function of its parameters, with a tap at every hidden nonlinearity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules import activation

from trials.optimizers.base import Params

Tap = Callable[[Tensor, int], Tensor]  # (output of a nonlinearity, its number in the forward pass) -> what goes on
NONLINEARITIES = tuple(
    getattr(activation, name) for name in activation.__all__ if name not in ("MultiheadAttention", "Softmax2d"))


@dataclass(frozen=True)
class Site:
    """A hidden nonlinearity in one forward pass: its name in the module (``act1``; ``act1#2`` when the pass reaches it
    a second time), and copies of its input and its output, (B, ...) each."""

    name: str
    input_B: Tensor
    output_B: Tensor


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
        self._sites = {name: child for name, child in module.named_modules() if isinstance(child, NONLINEARITIES)}
        self.has_nonlinearities = bool(self._sites)
        for site in self._sites.values():
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

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The module in evaluation mode (running statistics, no dropout of its own); afterwards as it was before."""
        training = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(training)

    @torch.no_grad()
    def record(self, params: Params, x: Tensor) -> tuple[Tensor, list[Site]]:
        """The output in evaluation mode, and every hidden nonlinearity in the order in which the pass reaches it."""
        inputs: list[Tensor] = []
        found: list[Site] = []
        hooks = []
        for name, site in self._sites.items():
            def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                inputs.append(args[0].clone())  # before the call: a nonlinearity may work in place

            def after(module: nn.Module, args: Any, output: Tensor, name: str = name or type(site).__name__) -> None:
                times = 1 + sum(site.name.partition("#")[0] == name for site in found)
                found.append(Site(name if times == 1 else f"{name}#{times}", inputs.pop(), output.clone()))
            hooks += [site.register_forward_pre_hook(before), site.register_forward_hook(after)]
        try:
            with self.evaluating():
                output = self(params, x)
        finally:
            for hook in hooks:
                hook.remove()
        return output, found

    def _on_output(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if self._tap is None:
            return None
        site, self._reached = self._reached, self._reached + 1
        return self._tap(output, site)
