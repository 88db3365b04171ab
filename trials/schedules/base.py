"""What a schedule is: the factor on the learning rate as a function of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from trials.fields import real
from trials.registry import Registry


@dataclass(frozen=True)
class Schedule(ABC):
    """Base of all schedules: a frozen dataclass whose ``real`` fields may be tensors, as an optimizer's.

    With T steps in the budget, counted from t = 0, and R = max(1, warmup T), the learning rate of step t is lr times

        min(1, (t + 1) / R) * curve(max(0, t + 1 - R), T + 1 - R).

    The warm-up is linear from lr / R at the first step to lr at step R - 1, which is the curve's step 0. So warmup 0
    (R = 1) is none: the curve of t and T.
    """

    warmup: float = real(0.0, low=0, high=1, help="fraction of the run in which lr rises linearly, before the curve")

    def factor(self, step: Tensor, total: Tensor) -> Tensor:
        """What lr is multiplied by at ``step`` (from 0) of ``total``; all float64 without dimensions.

        The budget of a trial says ``total``, also where the trial stops before."""
        ramp = (total * self.warmup).clamp(min=1.0)
        return ((step + 1.0) / ramp).clamp(max=1.0) * self.curve((step + 1.0 - ramp).clamp(min=0.0), total + 1.0 - ramp)

    @abstractmethod
    def curve(self, step: Tensor, total: Tensor) -> Tensor:
        """The factor after the warm-up, at ``step`` (from 0; not whole where warmup T is not) of ``total``."""


def progress(step: Tensor, total: Tensor) -> Tensor:
    """From 0 at the first step to 1 at the last."""
    return (step / (total - 1.0).clamp(min=1.0)).clamp(max=1.0)


SCHEDULES: Registry[Schedule] = Registry("schedule", "trials.schedules")
