"""Gaussian noise on the inputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trials.fields import real
from trials.knobs.base import KNOBS, Knob, Moment


@KNOBS.register("input_noise")
@dataclass(frozen=True)
class InputNoise(Knob):
    """x <- x + std e, e ~ N(0, 1), anew at every step; for a linear model with squared error the same as an L2 penalty
    of std^2 / 2 (Bishop 1995, Neural Computation 7:108)."""

    std: float = real(0.1, low=0, help="standard deviation, in units of the input")

    def input(self, x_B: Tensor, moment: Moment) -> Tensor:
        return x_B + self.std * moment.stream().normal(tuple(x_B.shape), x_B.dtype)
