"""Hooks and attributes of parameters count, a model's own ``train`` is called, and shared memory is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo_parameters
from state_cases import alone, apart, built, packed, plainly, trial

from trials.errors import UserError
from trials.measure import Measure
from trials.packs.unfit import Unfit
from trials.setup import prepare
from trials.spec import TrialSpec
from trials.trainer import train

PACKED = ["scaled gradient", "masked gradient", "hook that looks", "flag", "frozen norm", "true and false"]


def study(kind: str, seed: int = 0) -> TrialSpec:
    return trial(function="net", seed=seed, model={"name": f"{zoo_parameters.__file__}:net", "kind": kind})


def by_hand(spec: TrialSpec, kind: str, steps: int) -> dict[str, Any]:
    module = built(spec, zoo_parameters.net, kind)
    sgd = torch.optim.SGD(module.parameters(), lr=spec.optimizer["lr"], momentum=0.5)
    return plainly(spec, module, sgd, steps).state_dict()


@pytest.mark.parametrize("kind", [*PACKED, "counter"])
def test_a_trial_alone_is_a_plain_loop(kind: str) -> None:
    spec = study(kind)
    found = alone(spec, 30)
    for name, value in by_hand(spec, kind, 30).items():
        torch.testing.assert_close({**found.params, **found.buffers}[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", PACKED)
def test_lanes_are_trials_alone(kind: str) -> None:
    specs = [study(kind, seed) for seed in range(3)]
    lanes = packed(specs, 30)
    assert all(apart(lanes, lane, alone(spec, 30)) < 1e-9 for lane, spec in enumerate(specs))


def test_a_counter_on_a_parameter_is_no_matter_of_evaluation() -> None:
    spec = study("counter")
    often, seldom, again = (train(spec, Measure(when, "none", "none", "none")).trial["train_loss"]
                            for when in ("log", "ends", "log"))
    assert often == seldom == again
    with pytest.raises(Unfit):
        packed([spec, study("counter", 1)], 3)


@pytest.mark.parametrize(("kind", "said"), [
    ("hook of .grad", "parameter first.weight has a hook that waits for its .grad"),
    ("view of a parameter", "before lies in the memory of first.weight|first.weight lies in the memory of before"),
    ("view of a buffer", "rear lies in the memory of whole|whole lies in the memory of rear")])
def test_what_cannot_be_followed_is_refused(kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepare(study(kind), "cpu")
