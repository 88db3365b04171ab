"""The scale of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trials.fields import real
from trials.knobs.base import KNOBS, Knob, Moment


@KNOBS.register("loss_scale")
@dataclass(frozen=True)
class LossScale(Knob):
    """l <- scale l for each example, to which all of Adam but its eps is invariant (Kingma & Ba 2015, arXiv 1412.6980).
    There it weighs the loss against penalties and coupled decay alone; for plain SGD it is the same as scale times the
    lr, with 1 / scale of the penalties and of the coupled decay."""

    scale: float = real(2.0, low=0, help="factor on the loss")

    def loss(self, loss_B: Tensor, output_BC: Tensor, target_BC: Tensor, moment: Moment) -> Tensor:
        return loss_B * self.scale
