"""Adam and AdamW."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.fields import choice, real
from trials.optimizers.base import OPTIMIZERS, Params, State
from trials.optimizers.decay import DecayingOptimizer, in_type


@OPTIMIZERS.register("adam")
@dataclass(frozen=True)
class Adam(DecayingOptimizer):
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  w <- w - lr m' / (sqrt(v') + eps), where m' = m / (1 - b1^t)
    and v' = v / (1 - b2^t) undo the bias of starting at 0 (Kingma & Ba 2015, arXiv 1412.6980)."""

    lr: float = real(0.001, low=0, help="learning rate")
    beta1: float = real(0.9, low=0, high=1, open_high=True, help="decay of the mean gradient, b1")
    beta2: float = real(0.999, low=0, high=1, open_high=True, help="decay of the mean squared gradient, b2")
    eps: float = real(1e-8, low=0, help="added to the root of the mean squared gradient")

    def init(self, params: Params) -> State:
        """Slots ``mean`` and ``square`` hold a tensor for each parameter; ``count`` one number, the steps taken t."""
        count = next(iter(params.values())).new_zeros((), dtype=torch.float64)
        zeros = ({name: torch.zeros_like(p) for name, p in params.items()} for _ in range(2))
        return {"mean": next(zeros), "square": next(zeros), "count": {"steps": count}}

    def update(self, params: Params, grads: Params, state: State) -> None:
        steps = state["count"]["steps"].add_(1.0)
        skipped, common = state.get("skipped", {}), self._debiased(steps)
        for name, p in params.items():
            debias, root = self._debiased(steps - skipped[name]) if name in skipped else common
            g, mean, square = self.decayed(p, grads[name]), state["mean"][name], state["square"][name]
            # lerp_, addcmul_ and addcdiv_ would be shorter, but have no batching rule: under vmap they loop over lanes.
            mean.mul_(in_type(self.beta1, p)).add_(g * (1.0 - self.beta1))
            square.mul_(in_type(self.beta2, p)).add_(g.square().mul_(in_type(1.0 - self.beta2, p)))
            scale = square.sqrt().mul_(in_type(root, p)).add_(in_type(self.eps, p))
            p.sub_((mean / scale).mul_(in_type(self.rate(p) / debias, p)))

    def _debiased(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1 - b1^t, and the root of 1 / (1 - b2^t)."""
        return 1.0 - self.beta1**t, (1.0 - self.beta2**t).rsqrt()


@OPTIMIZERS.register("adamw")
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    weight_decay: float = real(0.01, low=0, help="weight decay wd")
    decay: str = choice("decoupled", ("decoupled", "independent"),
                        help="decoupled: w (1 - lr wd) before the step; independent: w (1 - s wd), s the schedule's "
                             "factor")
