"""Sharpness-aware minimization."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trials.fields import real
from trials.knobs.base import KNOBS, Gradient, Knob, Moment
from trials.optimizers.base import Params, global_norm


@KNOBS.register("sam")
@dataclass(frozen=True)
class SAM(Knob):
    """The gradient is taken at w + rho g / norm(g), where g is the gradient at w and its norm is over all parameters
    together (Foret et al. 2021, arXiv 2010.01412). Two gradients a step, on the same batch with the same random
    numbers; the loss returned is the one at the second point."""

    rho: float = real(0.05, low=0, help="radius of the neighbourhood")

    def sharpness(self, gradient: Gradient, params: Params, moment: Moment) -> tuple[Tensor, Params]:
        _, grads = gradient(params)
        scale = self.rho / (global_norm(grads) + 1e-12)  # where the gradient is 0 there is no direction to go
        return gradient({name: p + scale * grads[name] for name, p in params.items()})
