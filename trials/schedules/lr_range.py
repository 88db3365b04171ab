"""The learning-rate range test."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trials.fields import real
from trials.schedules.base import SCHEDULES, Schedule, progress


@SCHEDULES.register("lr_range")
@dataclass(frozen=True)
class LrRange(Schedule):
    """lr start^(1 - x): grows by one factor a step, from start lr at the first step to lr at the last. Where the loss
    falls fastest and where it blows up bound the useful learning rates (Smith 2017, arXiv 1506.01186, who grows it
    linearly)."""

    start: float = real(1e-5, low=0, high=1, open_low=True, help="fraction of lr at the first step")

    def curve(self, step: Tensor, total: Tensor) -> Tensor:
        return self.start ** (1.0 - progress(step, total))
