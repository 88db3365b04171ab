"""What trials must have in common to be lanes of one pack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trials.fields import real_names
from trials.knobs.base import KNOBS
from trials.optimizers.base import OPTIMIZERS
from trials.schedules.base import SCHEDULES
from trials.spec import TrialSpec


def structure(spec: TrialSpec) -> str:
    """Equal for trials that may share a pack: same data, model, batch size, precision, and the same kinds of optimizer,
    schedule and knobs. Their real numbers (lr, decay, strengths ...), seeds and budgets may differ."""
    optimizer, schedule = OPTIMIZERS.classes[spec.optimizer["name"]], SCHEDULES.classes[spec.schedule["name"]]
    return json.dumps([
        dict(spec.task), dict(spec.model), _shape(optimizer, spec.optimizer), _shape(schedule, spec.schedule),
        [[name, _shape(KNOBS.classes[name], params)] for name, params in spec.knobs.items()],
        spec.batch_size, spec.precision], sort_keys=True)


def reals(spec: TrialSpec) -> dict[tuple[str, str], float]:
    """The numbers that may differ between the lanes of a pack, by (component, field)."""
    parts: dict[str, tuple[type, Mapping[str, Any]]] = {
        "optimizer": (OPTIMIZERS.classes[spec.optimizer["name"]], spec.optimizer),
        "schedule": (SCHEDULES.classes[spec.schedule["name"]], spec.schedule),
        **{f"knobs.{name}": (KNOBS.classes[name], params) for name, params in spec.knobs.items()}}
    return {(part, name): values[name] for part, (cls, values) in parts.items() for name in real_names(cls)}


def _shape(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    varying = real_names(cls)
    return {name: value for name, value in values.items() if name not in varying}
