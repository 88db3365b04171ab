"""A number with its interval, and what follows from it for a claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LEVEL = 0.95  # of every interval, unless another is asked for
UNLIKELY = 0.05  # a p below this says that a law does not fit, or that curves are not one

Answer = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """``value`` with the ends of its interval at ``level``; an end that the data leave open is infinite, and a value
    that they leave open is NaN."""

    value: float
    low: float
    high: float
    level: float = LEVEL

    def covers(self, truth: float) -> bool:
        """Whether ``truth`` lies in the interval."""
        return self.low <= truth <= self.high

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not estimated"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Region:
    """Numbers from ``low`` to ``high``: where a claim says that a number lies."""

    low: float = -math.inf
    high: float = math.inf

    def judge(self, estimate: Estimate) -> Answer:
        """holds if the whole interval lies inside, fails if all of it lies outside, undecided otherwise."""
        if math.isnan(estimate.low) or math.isnan(estimate.high):
            return "undecided"
        if self.low <= estimate.low and estimate.high <= self.high:
            return "holds"
        return "fails" if estimate.high < self.low or estimate.low > self.high else "undecided"

    def __str__(self) -> str:
        if math.isinf(self.low) or math.isinf(self.high):
            return f"above {self.low:g}" if math.isinf(self.high) else f"below {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


def describe(estimates: Mapping[str, Estimate]) -> str:
    """All of them in one line: ``exponent 0.51 [0.45, 0.57], scale ...``."""
    return ", ".join(f"{name} {estimate}" for name, estimate in estimates.items())
