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
    """The end of training, or the measured step nearest to ``step``, or the first where the training loss has come down
    to ``train_loss``."""

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
        """The row of the table ``steps`` at this moment for each trial; trials that have none are left out, for they
        never got there or were not measured near it."""
        if self.step is not None:
            away = (steps["step"].clip(lower=1) / self.step).map(math.log).abs()
            near = steps.assign(_away=away)[away <= math.log(NEAR)]
            return near.sort_values("_away", kind="stable").drop_duplicates("trial_id").drop(columns="_away")
        there = steps[steps["train_loss"] <= self.train_loss]
        return there.sort_values("step", kind="stable").drop_duplicates("trial_id")


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
