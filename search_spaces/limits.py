"""Conditions between values: what each is allowed alone may not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from analysis.observe import named
from search_spaces.axes import Axis
from search_spaces.space import Substitution
from trials import consent, usercode
from trials.batches import total_steps
from trials.errors import UserError, did_you_mean
from trials.fields import is_number
from trials.spec import TrialSpec, make
from trials.tasks import own


def train_size(task: Mapping[str, Any]) -> int | None:
    """Number of training samples of a task; None where every batch is fresh. A user's own task is loaded once.

    Raises UserError where the user's code fails.
    """
    if usercode.is_usercode(task["name"]):
        return own.train_size(task)
    size: int | None = make("task", task).train_size
    return size


def check_limits(base: TrialSpec, axes: Sequence[Axis]) -> None:
    """Raise UserError unless every trial has one budget, and a batch that fits its task's training set."""
    by_path = {axis.path: axis for axis in axes}
    steps, epochs = (_extremes(by_path, ("budget", key), base.budget[key]) for key in ("steps", "epochs"))
    for step, epoch in product(steps, epochs):
        if (step > 0) == (epoch > 0):
            raise UserError(f"space.budget: every trial needs either steps or epochs, above 0, and not both; got steps "
                            f"{step} with epochs {epoch:g} (trial.budget gives what is not swept)")
    batch = max(_extremes(by_path, ("batch_size",), base.batch_size))
    place = "space.batch_size" if ("batch_size",) in by_path else "trial.batch_size"
    task_axes = [axis for axis in axes if axis.path[0] == "task"]
    substitute = Substitution(base, task_axes)
    for point in product(*(axis.extremes for axis in task_axes)):
        task = substitute(point).task
        if usercode.is_usercode(task["name"]) and not consent.may_run():
            continue
        size = train_size(task)
        swept = ", ".join(f"{'.'.join(axis.path)} {value!r}" for axis, value in zip(task_axes, point, strict=True)
                          if len(axis.path) > 1)
        title = f"task {task['name']}" + (f" ({swept})" if swept else "")
        if size is None and max(epochs) > 0:
            raise UserError(f"trial.budget.epochs: {title} draws fresh samples and has no epochs; give budget.steps")
        if size is not None and batch > size:
            raise UserError(f"{place}: expected at most {size}, the training samples of {title}, got {batch}")


def most_steps(base: TrialSpec, axes: Sequence[Axis]) -> int | None:
    """The optimizer steps of the longest trial; None where only a task's own code, or its parameters, could tell."""
    by_path = {axis.path: axis for axis in axes}
    steps, epochs = (max(_extremes(by_path, ("budget", key), base.budget[key])) for key in ("steps", "epochs"))
    if not epochs:
        return int(steps)
    own = usercode.is_usercode(base.task["name"]) and not consent.may_run()
    if own or any(axis.path[0] == "task" for axis in axes):
        return None
    batch = min(_extremes(by_path, ("batch_size",), base.batch_size))
    return total_steps(replace(base, batch_size=batch, budget={"steps": 0, "epochs": epochs}), train_size(base.task))


def check_values(wanted: Sequence[Any], name: str, planned: Sequence[Any], place: str) -> None:
    """Raise UserError at ``place`` for the first of the values ``wanted`` that no trial has in a column."""
    try:
        lacking = [value for value in wanted if not named(value, planned)]
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if not lacking:
        return
    value, numbers = lacking[0], [other for other in planned if is_number(other)]
    if is_number(value) and numbers:
        near = min(numbers, key=lambda other: abs(other - value))
        alone = sum(f"{other:.3g}" == f"{near:.3g}" for other in numbers) == 1
        fix = f"the nearest is {near:.3g}" if isinstance(near, float) and alone else f"the nearest is {near}"
    else:
        fix = did_you_mean(str(value), map(str, planned))
    raise UserError(f"{place}: {value} is no value of {name} in this study; {fix}")


def _extremes(by_path: Mapping[Any, Axis], path: tuple[str, ...], base: Any) -> tuple[Any, ...]:
    return by_path[path].extremes if path in by_path else (base,)
