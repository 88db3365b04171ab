"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trials.fields import real
from trials.knobs.base import KNOBS, Knob, Moment


@KNOBS.register("dropout")
@dataclass(frozen=True)
class Dropout(Knob):
    """Each hidden unit is 0 with probability p, else divided by 1 - p, so that its mean stays: h <- h m / (1 - p),
    m ~ Bernoulli(1 - p) (Srivastava et al. 2014, JMLR 15:1929; scaled in training, not in testing). The mask of each
    layer is drawn per example and unit, anew at every step."""

    p: float = real(0.5, low=0, high=1, open_high=True, help="probability of dropping a unit")

    def activation(self, h_B: Tensor, site: int, moment: Moment) -> Tensor:
        kept = moment.stream(site).uniform(tuple(h_B.shape)) >= self.p
        return h_B * kept / (1.0 - self.p)
