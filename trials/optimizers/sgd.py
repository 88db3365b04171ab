"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trials.fields import flag, real
from trials.optimizers.base import OPTIMIZERS, Params, State
from trials.optimizers.decay import DecayingOptimizer, in_type


@OPTIMIZERS.register("sgd")
@dataclass(frozen=True)
class SGD(DecayingOptimizer):
    """b <- m b + g;  w <- w - lr b, or w <- w - lr (g + m b) with Nesterov's momentum.

    The buffer b starts at 0 and the gradient enters undamped, as in torch (Sutskever et al. 2013 put lr inside b, which
    is the same while lr is constant).
    """

    momentum: float = real(0.0, low=0, high=1, open_high=True, help="momentum m")
    nesterov: bool = flag(False, help="Nesterov's momentum")

    def init(self, params: Params) -> State:
        return {"momentum": {name: torch.zeros_like(p) for name, p in params.items()}}

    def update(self, params: Params, grads: Params, state: State) -> None:
        for name, p in params.items():
            g, buffer = self.decayed(p, grads[name]), state["momentum"][name]
            buffer.mul_(in_type(self.momentum, p)).add_(g)
            direction = g + buffer * self.momentum if self.nesterov else buffer
            p.sub_(direction * self.rate(p))
