"""What all optimizers share: weight decay in three forms, and parameters in two groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from trials.fields import choice, real
from trials.optimizers.base import Optimizer

D = TypeVar("D", bound="DecayingOptimizer")


@dataclass(frozen=True)
class DecayingOptimizer(Optimizer):
    """Weight decay in its three forms, which differ as soon as there is momentum, a preconditioner or a schedule.

    ``coupled`` is an L2 penalty: g <- g + wd w, which the optimizer then averages and scales like any gradient.
    ``decoupled`` shrinks the weights by themselves: w <- (1 - lr wd) w before the step, with the lr of that step.
    ``independent`` does so whatever lr is: w <- (1 - s wd) w, where s is the factor of the schedule alone. This is the
    original form (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2); ``decoupled`` is what torch made of it.

    Vector-like parameters (biases, gains: fewer than two dimensions) take ``vector_lr`` times the lr and
    ``vector_decay`` times the wd of the matrix-like ones.
    """

    weight_decay: float = real(0.0, low=0, help="weight decay wd")
    decay: str = choice("coupled", ("coupled", "decoupled", "independent"),
                        help="coupled: g + wd w (L2 penalty); decoupled: w (1 - lr wd) before the step; independent: "
                             "w (1 - s wd), s the schedule's factor")
    vector_lr: float = real(1.0, low=0, help="factor on lr for biases and gains")
    vector_decay: float = real(1.0, low=0, help="factor on weight_decay for biases and gains")

    def scheduled(self: D, factor: float | Tensor) -> D:
        copy = super().scheduled(factor)
        if self.decay != "independent":  # the others follow the schedule through lr
            return copy
        weight_decay: Any = self.weight_decay * factor
        return replace(copy, weight_decay=weight_decay)

    def rate(self, p: Tensor) -> float | Tensor:
        """The learning rate of ``p``."""
        return self.lr if p.ndim >= 2 else self.lr * self.vector_lr

    def decayed(self, p: Tensor, g: Tensor) -> Tensor:
        """The gradient the step is to use, maybe ``g`` itself, so not to be changed; decay that is not coupled acts on
        ``p`` in place."""
        decay = self.weight_decay if p.ndim >= 2 else self.weight_decay * self.vector_decay
        if not isinstance(decay, Tensor) and decay == 0.0:  # as in most studies: two passes over the weights less
            return g
        if self.decay == "coupled":
            return (p * decay).add_(g)
        p.mul_(in_type(1.0 - (decay if self.decay == "independent" else self.rate(p) * decay), p))
        return g


def in_type(value: float | Tensor, p: Tensor) -> float | Tensor:
    """``value`` in the type of ``p``. Under vmap an in-place operation on float32 with float64 scalars is ten times
    slower than one in a single type."""
    return value.to(p.dtype) if isinstance(value, Tensor) else value
