"""Step decay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.fields import count, real
from trials.schedules.base import SCHEDULES, Schedule


@SCHEDULES.register("step")
@dataclass(frozen=True)
class StepDecay(Schedule):
    """lr gamma^floor((drops + 1) t / T): equal stretches, each at gamma times the lr of the one before (He et al. 2016,
    arXiv 1512.03385)."""

    gamma: float = real(0.1, low=0, high=1, help="factor of each drop")
    drops: int = count(2, help="drops; 2 are at a third and two thirds of the run")

    def curve(self, step: Tensor, total: Tensor) -> Tensor:
        # A whole quotient may come out a little below itself, if the warm-up is not a whole number of steps in binary.
        return self.gamma ** torch.floor((self.drops + 1) * step / total + 1e-9)
