"""Lanes train as trials alone do: for every optimizer, schedule, model and knob there is, whatever their neighbours."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from trials import fields
from trials.errors import UserError
from trials.knobs.base import KNOBS
from trials.models.base import MODELS
from trials.optimizers.base import OPTIMIZERS, Params
from trials.packs.lanes import Lanes, _recordings
from trials.packs.structure import reals
from trials.schedules.base import SCHEDULES
from trials.setup import Trial, prepare
from trials.spec import TrialSpec, parse_trial
from trials.tasks.base import TASKS
from trials.trainer import Alone

torch.set_num_threads(1)

STEPS = 300
SMALL: dict[str, dict[str, Any]] = {  # sizes that train in a moment; a model that is not here is tried as it is
    "mlp": {"width": 8, "depth": 2}, "mini_alexnet": {"channels": 2, "width": 8},
    "mini_alexnet_bn": {"channels": 2, "channels2": 3, "width": 8},
    "gaussian_regression": {"dim": 6, "samples": 64}, "modular_addition": {"modulus": 7}}
CLASSES: dict[str, dict[str, type]] = {
    "optimizer": OPTIMIZERS.classes, "schedule": SCHEDULES.classes, "model": MODELS.classes, "task": TASKS.classes,
    "knob": KNOBS.classes}


def component(name: str) -> dict[str, Any]:
    return {"name": name, **SMALL.get(name, {})}


def trial(kind: str, name: str, **changes: Any) -> TrialSpec:
    """A small trial with this component, everything else simple."""
    config: dict[str, Any] = {
        "task": component("digits"), "model": component("mlp"), "optimizer": {"name": "sgd", "lr": 0.02},
        "budget": {"steps": STEPS}, "batch_size": 4, "precision": "float64", **changes}
    if kind == "knob":
        config["knobs"] = {name: {}}
    else:
        config[kind] = component(name)
    if name == "diagonal":
        config["task"] = component("gaussian_regression")
    return parse_trial(config)


def neighbour(spec: TrialSpec, number: int) -> TrialSpec:
    """The trial with another seed and, where allowed, all its real numbers a little different."""
    rng = random.Random(number)
    config: dict[str, Any] = {"optimizer": dict(spec.optimizer), "schedule": dict(spec.schedule),
                              "knobs": {name: dict(params) for name, params in spec.knobs.items()}}
    for (part, name), value in reals(spec).items():
        where = config["knobs"][part.partition(".")[2]] if part.startswith("knobs.") else config[part]
        cls = (CLASSES["knob"][part.partition(".")[2]] if part.startswith("knobs.")
               else CLASSES[part][config[part]["name"]])
        changed = value * rng.uniform(0.8, 1.2) if value else rng.uniform(0.0, 0.01)
        try:
            where[name] = fields.check(fields.declared(cls)[name], changed, "")
        except UserError:
            continue
    return replace(spec, seed=spec.seed + number, **config)


def prepared(spec: TrialSpec, count: int) -> list[Trial]:
    first = prepare(spec, "cpu")
    return [first, *(prepare(neighbour(spec, number), "cpu", first) for number in range(1, count))]


def trained(lanes: Lanes) -> Lanes:
    for _ in range(STEPS):
        lanes.step()
    return lanes


def distance(these: Params, those: Params) -> float:
    """Largest relative distance of a parameter."""
    return max(float((these[name] - value).norm() / value.norm()) for name, value in those.items())


CASES = [(kind, name) for kind, classes in CLASSES.items() for name in classes]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def test_alone_in_a_pack_of_3_and_in_a_pack_of_64(kind: str, name: str) -> None:
    spec = trial(kind, name)
    alone = Alone(prepare(spec, "cpu"))
    for _ in range(STEPS):
        alone.take()
    assert all(bool(value.isfinite().all()) for value in alone.params.values())
    assert distance(alone.params, alone.trial.initial) > 1e-3  # it did train
    for count in (3, 64):
        lanes = trained(Lanes(prepared(spec, count)))
        assert distance({name: value[0] for name, value in lanes.params.items()}, alone.params) < 1e-9
        moved = distance({name: value[1] for name, value in lanes.params.items()}, alone.params)
        assert moved > 1e-6  # the neighbour is another trial


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def test_every_component_is_recorded(kind: str, name: str) -> None:
    """A step that cannot be recorded still runs, more slowly; nothing of ours should be such."""
    lanes = Lanes(prepared(trial(kind, name), 2))
    lanes.step()
    [found] = [recording for key, recording in _recordings.items() if key[:-1] == lanes._kind]
    assert found is not None
