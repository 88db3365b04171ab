"""The scale of the initial weights."""

from __future__ import annotations

from dataclasses import dataclass

from trials.fields import real
from trials.knobs.base import KNOBS, Knob
from trials.optimizers.base import Params


@KNOBS.register("init_scale")
@dataclass(frozen=True)
class InitScale(Knob):
    """W <- gain W for every matrix-like parameter before training; a large gain makes training lazy (Chizat, Oyallon &
    Bach 2019, arXiv 1812.07956). With weight decay it also delays generalization (Liu et al. 2023, arXiv 2210.01117).
    Biases and gains are left alone."""

    gain: float = real(2.0, low=0, help="factor on the initial weights")

    def initial(self, params: Params) -> Params:
        return {name: p * self.gain if p.ndim >= 2 else p for name, p in params.items()}
