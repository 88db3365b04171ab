"""The probe set: the few training samples on which activations and kernels are measured."""

from __future__ import annotations

import torch
from torch import Tensor

from trials.streams import generator
from trials.tasks.base import Data


def probe(data: Data, limit: int) -> tuple[Tensor, Tensor]:
    """``x``, ``y`` of at most ``limit`` training samples, drawn without replacement.

    The draw depends on nothing but the size of the training set: the same samples at every step and in every trial of a
    task, so that numbers can be compared, and a smaller probe set is the beginning of a larger one.
    """
    order = torch.randperm(len(data.x_train), generator=generator(0, "probe"))[:limit].to(data.x_train.device)
    return data.x_train[order], data.y_train[order]
