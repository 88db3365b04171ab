"""One cycle."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.fields import real
from trials.schedules.base import SCHEDULES, Schedule, progress
from trials.schedules.cosine import cosine


@SCHEDULES.register("one_cycle")
@dataclass(frozen=True)
class OneCycle(Schedule):
    """From start lr up to lr at a fraction ``peak`` of the run, and down to final lr at its last step (Smith & Topin
    2017, arXiv 1708.07120), each half a cosine as in fastai and torch. It is its own warm-up."""

    peak: float = real(0.3, low=0, high=1, open_low=True, open_high=True, help="fraction of the run at which lr peaks")
    start: float = real(0.04, low=0, high=1, help="fraction of lr at the first step")
    final: float = real(4e-6, low=0, high=1, help="fraction of lr at the last step")

    def curve(self, step: Tensor, total: Tensor) -> Tensor:
        x = progress(step, total)
        rising = cosine(self.start, 1.0, (x / self.peak).clamp(max=1.0))
        falling = cosine(1.0, self.final, ((x - self.peak) / (1.0 - self.peak)).clamp(min=0.0))
        return torch.where(x < self.peak, rising, falling)
