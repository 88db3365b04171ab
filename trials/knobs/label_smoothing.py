"""Label smoothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trials.fields import real
from trials.knobs.base import KNOBS, Knob, Moment


@KNOBS.register("label_smoothing")
@dataclass(frozen=True)
class LabelSmoothing(Knob):
    """y <- (1 - a) y + a / K over K classes (Szegedy et al. 2016, arXiv 1512.00567). Negative a sharpens
    (Wei et al. 2022, arXiv 2106.04149)."""

    needs_classes = True

    a: float = real(0.1, low=-1, high=1, help="weight of the uniform distribution")

    def target(self, target_BC: Tensor, moment: Moment) -> Tensor:
        return (1.0 - self.a) * target_BC + self.a / target_BC.shape[-1]
