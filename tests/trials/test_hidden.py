"""State that no attribute of a module shows (``hidden``): as in a plain loop, saved, put back, and a reason to train
alone."""

from __future__ import annotations

import hidden
import pytest
import torch
from state_cases import alone, built, packed, plainly, trial
from support import Memory as Checkpoints
from test_buffers import numbers

from trials.measure import Measure
from trials.packs.unfit import Unfit, reason
from trials.rehearsal import equal_starts
from trials.spec import TrialSpec
from trials.trainer import train

SAVED = {
    "slots": "state", "history": "state", "table": "state", "own": "state", "closure": "state", "partial": "state",
    "numpy": "state", "array": "state", "decimal": "state", "fraction": "state", "long": "state", "namespace": "state",
    "beside": "hidden_beside.COUNT and hidden_beside.SEEN", "function": "hidden.called", "hook": "1.a hook 0",
    "teacher": "teacher", "alias": "a and list"}
NOT_SAVED = {"iterator": "state", "chain": "state", "generator": "state", "cache": "hidden.cached"}
CHANGES = {**SAVED, **NOT_SAVED}
STEPS = 25


def of(kind: str, seed: int = 0) -> TrialSpec:
    return trial(seed=seed, steps=STEPS, model={"name": f"{hidden.__file__}:net", "kind": kind})


@pytest.mark.parametrize("kind", [*CHANGES, "assigned", "in_place"])
def test_as_in_a_plain_loop(kind: str) -> None:
    spec = of(kind)
    hidden.hidden_beside.SEEN.clear()
    vars(hidden.called).clear()
    hidden.cached.cache_clear()
    module = built(spec, hidden.net, kind)
    plain = plainly(spec, module, torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.5), STEPS)
    found = alone(spec, STEPS)
    for name, value in plain.named_parameters():
        torch.testing.assert_close(found.params[name], value.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [*CHANGES, "assigned", "in_place"])
def test_resumed_measured_and_after_another_trial_it_is_the_same(kind: str) -> None:
    spec, measure, memory = of(kind), Measure("ends", "none", "none", "none"), Checkpoints(16)
    expected = numbers(train(spec, measure))
    train(of(kind, 1), measure)
    assert numbers(train(spec, measure, checkpoints=memory)) == expected
    assert bool(memory.bytes) == (kind not in NOT_SAVED)
    assert numbers(train(spec, measure, checkpoints=memory)) == expected
    often = train(spec, Measure("log", "none", "none", "none"))
    assert often.trial["test_loss"] == train(spec, measure).trial["test_loss"]


@pytest.mark.parametrize("kind", CHANGES)
def test_a_pack_says_what_changes(kind: str) -> None:
    with pytest.raises(Unfit) as error:
        packed([of(kind, seed) for seed in range(3)], 1)
    assert str(error.value).startswith(f"the model changes {CHANGES[kind]} as it trains")
    assert ("no checkpoint can hold" in str(error.value)) == (kind in NOT_SAVED)


@pytest.mark.parametrize("kind", ["features", "in_training"])
def test_what_each_seed_draws_for_itself_is_no_pack(kind: str) -> None:
    specs = [of(kind, seed) for seed in range(3)]
    with pytest.raises(Unfit, match="drawn of the model is another one at another seed"):
        packed(specs, 1)
    assert not equal_starts(specs[0], (0, 1))


def test_assigning_to_data_is_no_pack_and_says_so() -> None:
    with pytest.raises(RuntimeError) as error:
        packed([of("assigned", seed) for seed in range(3)], 1)
    assert reason(error.value) == "the model assigns to .data of a tensor, which lanes do not have"
