"""Label noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.errors import UserError
from trials.fields import real
from trials.knobs.base import KNOBS, Knob, Moment
from trials.streams import Stream


@KNOBS.register("label_noise")
@dataclass(frozen=True)
class LabelNoise(Knob):
    """The label of each training sample is replaced, with probability p, by a class drawn uniformly from all K, its own
    among them, so that a fraction p (1 - 1 / K) is wrong (Zhang et al. 2017, arXiv 1611.03530).

    The draw is of the trial's seed and the sample alone: the same at every step of the training. A replaced target is
    one-hot, so name label smoothing after this knob.
    """

    needs_classes = True

    p: float = real(0.2, low=0, high=1, help="probability of replacing a label")

    def target(self, target_BC: Tensor, moment: Moment) -> Tensor:
        if moment.samples is None:
            raise UserError("trial.knobs.label_noise: needs a training set whose samples come again, but the task "
                            "draws every batch fresh")
        replaced_B, class_B = self.drawn(moment.root, moment.samples, target_BC.shape[-1])
        one_hot_BC = class_B[:, None] == torch.arange(target_BC.shape[-1], device=target_BC.device)
        return torch.where(replaced_B[:, None], one_hot_BC.to(target_BC.dtype), target_BC)

    def relabel(self, label_n: Tensor, classes: int, root: Stream) -> Tensor:
        replaced_n, class_n = self.drawn(root, torch.arange(len(label_n), device=label_n.device), classes)
        return torch.where(replaced_n, class_n, label_n)

    def drawn(self, root: Stream, samples_B: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """For each of the samples (B,), whether its label is replaced, and the class that would replace it."""
        stream = root.at(samples_B)  # a key for each sample, so one number for each where one is drawn
        replaced_B = stream.at(0).uniform((), torch.float64) < self.p
        class_B = (stream.at(1).uniform((), torch.float64) * classes).long()
        return replaced_B, class_B
