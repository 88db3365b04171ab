"""Buffers are a trial's state: as in a plain loop, side by side as alone, and from a checkpoint as without one."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from state_cases import alone, apart, built, packed, plainly, trial
from support import Memory
from torch import nn

from trials.errors import UserError
from trials.measure import Measure
from trials.observer import Emitted
from trials.packs.lanes import _recordings
from trials.packs.pack import train_pack
from trials.setup import prepare
from trials.trainer import Alone, train

PACKED = ["batch_norm", "instance_norm", "moving_average", "reassigned", "warm_up_in_a_buffer"]
ALONE = ["cumulative", "spectral_norm", "weight_norm"]  # of the last vmap warns that it is slow
STEPS = 300


@pytest.mark.parametrize("kind", [*PACKED, *ALONE])
def test_as_in_a_plain_loop(kind: str) -> None:
    spec = trial(kind, steps=25)
    module = built(spec, zoo.net, kind)
    plain = plainly(spec, module, torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.5), 25)
    found = alone(spec, 25)
    for name, value in plain.named_parameters():
        torch.testing.assert_close(found.params[name], value.detach(), rtol=1e-10, atol=1e-12)
    for name, value in plain.named_buffers():
        torch.testing.assert_close(found.buffers[name], value, rtol=1e-10, atol=1e-12)
    data = found.trial.data
    with torch.no_grad():
        expected = nn.functional.cross_entropy(plain.eval()(data.x_test), data.y_test).item()
    rows = train(spec, Measure("log", "none", "none", "none"))  # measured on the way, which changes nothing
    assert rows.trial["test_loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", PACKED)
def test_side_by_side_as_alone(kind: str) -> None:
    specs = [trial(kind, seed) for seed in range(3)]
    lanes = packed(specs, STEPS)
    for lane in (0, 2):
        assert apart(lanes, lane, alone(specs[lane], STEPS)) < 1e-9
    assert lanes.looks > 2
    [recording] = [recording for key, recording in _recordings.items() if key[:-1] == lanes._kind]
    assert recording is not None


def test_many_lanes_with_other_knobs_and_ends() -> None:
    measure = Measure("log", "ends", "none", "none", activations="ends", kernel="ends")
    knobs = {"sam": {"rho": 0.05}, "dropout": {"p": 0.2}}
    specs = [trial("batch_norm", seed, steps=12 + seed, knobs=knobs) for seed in range(4)]
    found = dict((spec.trial_id, emitted) for spec, emitted in train_pack(specs, measure, "cpu", 4))
    for spec in specs:
        expected = train(spec, measure)
        for mine, theirs in zip(found[spec.trial_id].steps, expected.steps, strict=True):
            for name, value in theirs.items():
                if name != "elapsed" and isinstance(value, float):
                    assert mine[name] == pytest.approx(value, rel=1e-4, abs=1e-9), name


def test_two_gradients_a_step_update_buffers_once_and_at_the_first_point() -> None:
    """As a loop does that lets batch norm keep its statistics at SAM's second point."""
    spec = trial("batch_norm", knobs={"sam": {"rho": 0.1}})
    found, plain = alone(spec, 1), alone(trial("batch_norm"), 1)
    assert found.buffers["2.num_batches_tracked"] == 1
    for name, value in plain.buffers.items():
        assert torch.equal(found.buffers[name], value)
    counted = alone(trial("warm_up_in_a_buffer", knobs={"sam": {"rho": 0.1}}), 15)
    assert counted.buffers["count"] == 15


def test_the_module_and_the_next_trial_are_left_alone() -> None:
    first = prepare(trial("batch_norm"), "cpu")
    before = {name: value.clone() for name, value in first.network.module.state_dict().items()}
    found = Alone(first)
    for _ in range(5):
        found.take()
    found.read(None, None)
    for name, value in first.network.module.state_dict().items():
        assert torch.equal(value, before[name])
    again = Alone(prepare(trial("batch_norm", 1), "cpu", first))
    assert again.buffers["2.num_batches_tracked"] == 0


def test_a_buffer_that_grows_is_followed_alone(tmp_path: Path) -> None:
    (tmp_path / "grows.py").write_text("""
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 10)
        self.register_buffer("bank", torch.zeros(0, 64))
    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.bank = torch.cat([self.bank, x.detach()])
        return self.last(x)
def net(shape, outputs):
    return Net()
""")
    spec = trial(model={"name": f"{tmp_path / 'grows.py'}:net"})
    assert alone(spec, 3).buffers["bank"].shape == (24, 64)
    with pytest.raises(RuntimeError, match="buffer bank changes its shape or type"):
        packed([spec, trial(seed=1, model=spec.model)], 1)


# Checkpoints

def numbers(emitted: Emitted) -> list[object]:
    return [{name: value for name, value in row.items() if name not in ("elapsed", "wall_time")}
            for row in (emitted.trial, *emitted.steps, *emitted.layers)]


SAVED = ["counter", "counts_every_call", "annealed", "list_grows", "deep", "tensor_attribute", "of_a_torch_module",
         "buffer_that_comes_late", "of_the_class", "of_the_file", "own_generator", "numpy_draws", "python_draws",
         "old_spectral_norm"]


@pytest.mark.parametrize("kind", [*PACKED, *ALONE, *SAVED])
def test_a_resumed_trial_is_the_uninterrupted_one(kind: str) -> None:
    spec, measure, memory = trial(kind, steps=40), Measure("log", "ends", "none", "none"), Memory(38)
    numpys, pythons = np.random.get_state(), random.getstate()
    expected = numbers(train(spec, measure))
    np.random.set_state(numpys)
    random.setstate(pythons)
    assert numbers(train(spec, measure, checkpoints=memory)) == expected
    saved = memory.load(spec)
    assert saved is not None and saved.taken == 37
    assert numbers(train(spec, measure, checkpoints=memory)) == expected


def test_what_cannot_be_saved_begins_anew() -> None:
    spec, measure, memory = trial("iterator", steps=40), Measure("log", "none", "none", "none"), Memory(38)
    expected = numbers(train(spec, measure, checkpoints=memory))
    assert not memory.bytes
    assert numbers(train(spec, measure, checkpoints=memory)) == expected


@pytest.mark.parametrize("buffer", [False, True])
def test_complex_numbers_are_refused(buffer: bool) -> None:
    spec = trial(function="complex_net", model={"name": f"{zoo.__file__}:complex_net", "buffer": buffer})
    with pytest.raises(UserError, match=f"trial.model: {'buffer' if buffer else 'parameter'} w is complex"):
        prepare(spec, "cpu")
