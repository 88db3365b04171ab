"""Gradient clipping."""

from __future__ import annotations

from dataclasses import dataclass

from trials.fields import real
from trials.knobs.base import KNOBS, Knob, Moment
from trials.optimizers.base import Params, global_norm


@KNOBS.register("gradient_clipping")
@dataclass(frozen=True)
class GradientClipping(Knob):
    """g <- g min(1, norm / norm(g)) with the norm over all parameters together (Pascanu et al. 2013, arXiv 1211.5063).
    As in torch, 1e-6 is added to norm(g)."""

    norm: float = real(1.0, low=0, open_low=True, help="largest norm of the gradient")

    def gradient(self, grads: Params, params: Params, moment: Moment) -> Params:
        scale = (self.norm / (global_norm(grads) + 1e-6)).clamp(max=1.0)
        return {name: g * scale for name, g in grads.items()}
