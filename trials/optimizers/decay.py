"""What all optimizers share: a learning rate and weight decay, coupled to the gradient or decoupled from it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trials.fields import choice, real
from trials.optimizers.base import Optimizer


@dataclass(frozen=True)
class DecayingOptimizer(Optimizer):
    """Weight decay in its two forms, which differ as soon as there is momentum or a preconditioner.

    ``coupled`` is an L2 penalty: g <- g + wd w, which the optimizer then averages and scales like any gradient.
    ``decoupled`` shrinks the weights by themselves: w <- (1 - lr wd) w before the step
    (Loshchilov & Hutter 2019, arXiv 1711.05101).
    """

    lr: float = real(0.01, low=0, help="learning rate")
    weight_decay: float = real(0.0, low=0, help="weight decay wd")
    decay: str = choice("coupled", ("coupled", "decoupled"),
                        help="coupled: g + wd w (L2 penalty); decoupled: w (1 - lr wd) before the step")

    def decayed(self, p: Tensor, g: Tensor) -> Tensor:
        """The gradient the step is to use; decoupled decay acts on ``p`` in place. ``g`` is left alone."""
        if self.decay == "coupled":
            return (p * self.weight_decay).add_(g)
        p.mul_(in_type(1.0 - self.lr * self.weight_decay, p))
        return g


def in_type(value: float | Tensor, p: Tensor) -> float | Tensor:
    """``value`` in the type of ``p``. Under vmap an in-place operation on float32 with float64 scalars is ten times
    slower than one in a single type."""
    return value.to(p.dtype) if isinstance(value, Tensor) else value
