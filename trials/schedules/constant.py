"""A constant learning rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.schedules.base import SCHEDULES, Schedule


@SCHEDULES.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """lr stays."""

    def curve(self, step: Tensor, total: Tensor) -> Tensor:
        return torch.ones_like(step)
