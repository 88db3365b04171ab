"""The ten places where a knob can enter training: one before the first step, nine in each step.

A knob is a frozen dataclass that overrides the method of its place (or of several). In the order of time:

0. ``initial``     the parameters that training starts from    gain of the initial weights
1. ``input``       the batch before the model sees it          noise, mixup, cutout
2. ``target``      the target distribution                     label smoothing, label noise
3. ``weights``     the weights the model is evaluated with     weight noise, quantization, masks
4. ``activation``  the output of each hidden nonlinearity      dropout, top-k
5. ``loss``        the loss of each example                    flooding, z-loss
6. ``penalty``     what is added to the mean loss              orthogonality, L1, spectral norm
7. ``sharpness``   how the gradient is obtained                SAM, gradient-norm penalty
8. ``gradient``    the gradient on its way to the optimizer    clipping, Grokfast
9. ``update``      the parameters after the optimizer's step   proximal steps, projections

Knobs at one place apply in the order in which the study names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trials.optimizers.base import Params
from trials.registry import Registry
from trials.streams import Stream

Gradient = Callable[[Params], tuple[Tensor, Params]]  # parameters -> (loss, gradient at those parameters)


@dataclass(frozen=True)
class Moment:
    """What a knob may know of the moment.

    ``step`` counts from 0; in a pack it is a tensor. ``root`` is the random stream of (trial seed, this knob);
    ``stream(site)`` splits it, so that two steps or two layers never share a mask. ``initial`` are the parameters
    before training. ``samples`` (B,), int64, are the indices of the batch in the training set; None where data are
    fresh.
    """

    step: int | Tensor
    root: Stream
    initial: Params
    samples: Tensor | None = None

    def stream(self, site: int = 0) -> Stream:
        """The knob's random stream at this step, for the ``site``-th thing it draws."""
        return self.root.at(self.step).at(site)


class Knob:
    """Base of all knobs. Every place defaults to doing nothing; ``real`` fields may be tensors, so do not branch on
    their values. Shapes: B batch, C outputs; ``x_B`` is (B, *input_shape)."""

    needs_classes: ClassVar[bool] = False  # whether targets must be class probabilities; a regression is refused then

    def initial(self, params: Params) -> Params:
        """Place 0, before the first step; returns new tensors where it changes something."""
        return params

    def relabel(self, label_n: Tensor, classes: int, root: Stream) -> Tensor:
        """The classes (n,) that training samples 0 ... n - 1 have for this knob, of the classes before it: what a
        ``target`` amounts to that gives a sample another class for good. Training loss and accuracy are of these."""
        return label_n

    def input(self, x_B: Tensor, moment: Moment) -> Tensor:
        """Place 1."""
        return x_B

    def target(self, target_BC: Tensor, moment: Moment) -> Tensor:
        """Place 2."""
        return target_BC

    def weights(self, params: Params, moment: Moment) -> Params:
        """Place 3."""
        return params

    def activation(self, h_B: Tensor, site: int, moment: Moment) -> Tensor:
        """Place 4; ``site`` counts the hidden nonlinearities from 0."""
        return h_B

    def loss(self, loss_B: Tensor, output_BC: Tensor, target_BC: Tensor, moment: Moment) -> Tensor:
        """Place 5."""
        return loss_B

    def penalty(self, params: Params, moment: Moment) -> Tensor:
        """Place 6; a scalar."""
        return torch.zeros(())

    def sharpness(self, gradient: Gradient, params: Params, moment: Moment) -> tuple[Tensor, Params]:
        """Place 7; calls ``gradient`` at points of its choice."""
        return gradient(params)

    def gradient(self, grads: Params, params: Params, moment: Moment) -> Params:
        """Place 8."""
        return grads

    def update(self, params: Params, moment: Moment) -> None:
        """Place 9, in place."""


PLACES = ("initial", "input", "target", "weights", "activation", "loss", "penalty", "sharpness", "gradient", "update")
KNOBS: Registry[Knob] = Registry("knob", "trials.knobs")


def places(knob: type[Knob]) -> tuple[str, ...]:
    """The places a knob enters at: those whose method it overrides."""
    return tuple(place for place in PLACES if getattr(knob, place) is not getattr(Knob, place))
