"""When in training a claim looks: controls such as the same number of steps, or the same training loss."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trials.errors import UserError
from trials.fields import is_number

if TYPE_CHECKING:
    import pandas as pd

NEAR = 1.25  # a measured step stands for a wanted one up to this factor away


@dataclass(frozen=True)
class Moment:
    """The end of training, or the measured step nearest to ``step``, or where the training loss first comes down to
    ``train_loss``, between two measured steps."""

    step: int | None = None
    train_loss: float | None = None

    def __str__(self) -> str:
        if self.step is not None:
            return f"at step {self.step:,}"
        return f"at training loss {self.train_loss:g}" if self.train_loss is not None else "at the end"

    @property
    def is_end(self) -> bool:
        """Whether it is the end of training."""
        return self.step is None and self.train_loss is None

    def pick(self, steps: pd.DataFrame) -> pd.DataFrame:
        """trial_id, ``step`` and ``before``, the measured steps about this moment, and the ``weight`` of the first of
        them: the numbers of a trial are weight x (those at step) + (1 - weight) x (those at before). Trials that never
        got there or were not measured near it are left out.

        A training loss is between two measured ones in proportion to logarithms; otherwise ``before`` is ``step``, and
        the weight 1. ``apart`` is by what factor the two losses differ: that of a trial which was below the loss when
        it was first measured is how far it was; of steps, how far the measured one is from the wanted one.
        """
        import numpy as np

        if self.step is not None:
            away = (steps["step"].clip(lower=1) / self.step).map(math.log).abs()
            near = steps.assign(_away=away)[away <= math.log(NEAR) + 1e-9]
            near = near.sort_values("_away", kind="stable").drop_duplicates("trial_id")
            return near[["trial_id", "step"]].assign(before=near["step"], weight=1.0, apart=np.exp(near["_away"]))
        steps = steps.sort_values("step", kind="stable")
        earlier = steps.groupby("trial_id")[["step", "train_loss"]].shift()
        steps = steps.assign(before=earlier["step"].fillna(steps["step"]).astype("int64"), loss=earlier["train_loss"])
        there = steps[steps["train_loss"] <= self.train_loss].drop_duplicates("trial_id")
        least = there["train_loss"].clip(lower=1e-300)
        weight = np.log(there["loss"] / self.train_loss) / np.log(there["loss"] / least)
        between = np.isfinite(weight) & (there["before"] < there["step"])
        return there[["trial_id", "step"]].assign(
            before=there["before"].where(between, there["step"]), weight=weight.where(between, 1.0),
            apart=there["loss"].where(between, self.train_loss) / least)

    def spread(self, picked: pd.DataFrame) -> str:
        """How well what is the same is the same in the trials ``picked``, in words; empty where it is exactly."""
        if self.step is not None:
            early, late = picked["step"].min(), picked["step"].max()
            return "" if early == late == self.step else f"measured at steps {early:,} to {late:,}"
        between = picked["before"] < picked["step"]
        words = [f"between measurements whose losses are at most {_factor(picked['apart'][between].max())} apart"
                 ] if between.any() else []
        below = ~between & (picked["apart"] > 1 + 1e-9)
        if below.any():
            words.append(f"{below.sum()} {'trials' if below.sum() > 1 else 'trial'} below it when first measured, by "
                         f"{_factor(picked['apart'][below].max())} at most")
        return f"training loss {self.train_loss:g}: {'; '.join(words)}" if words else ""


def _factor(value: float) -> str:
    return f"x {value:.3g}"


def parse_moment(value: Any, place: str, known: Collection[str]) -> Moment:
    """``end``, ``{step: 1000}`` or ``{train_loss: 0.5}``."""
    if value == "end":
        return Moment()
    wrong = UserError(f"{place}: expected end, {{step: 1000}} or {{train_loss: 0.5}}, got {value!r}")
    if not isinstance(value, Mapping) or len(value) != 1:
        raise wrong
    [(name, number)] = value.items()
    if not is_number(number) or number <= 0:
        raise wrong
    if name == "step" and number == int(number):
        return Moment(step=int(number))
    if name != "train_loss":
        raise wrong
    return Moment(train_loss=float(number))
