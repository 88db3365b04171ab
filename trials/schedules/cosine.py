"""Cosine annealing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.fields import real
from trials.schedules.base import SCHEDULES, Schedule, progress


@SCHEDULES.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """lr (final + (1 - final) (1 + cos(pi x)) / 2) with x from 0 at the first step to 1 at the last (Loshchilov &
    Hutter 2017, arXiv 1608.03983, without restarts)."""

    final: float = real(0.0, low=0, high=1, help="fraction of lr at the last step")

    def curve(self, step: Tensor, total: Tensor) -> Tensor:
        return cosine(1.0, self.final, progress(step, total))


def cosine(start: float | Tensor, end: float | Tensor, x: Tensor) -> Tensor:
    """Half a period of a cosine, from ``start`` at x = 0 to ``end`` at x = 1."""
    return end + (start - end) * (0.5 * (1.0 + torch.cos(math.pi * x)))
