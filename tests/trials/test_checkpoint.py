"""Checkpoints: a trial that goes on from one ends as if nothing had happened, alone and in any pack."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import pytest
import torch
from support import Memory

from trials.checkpoint import Checkpoint, Stopped
from trials.measure import Measure
from trials.observer import Emitted
from trials.packs.pack import train_pack
from trials.spec import TrialSpec, parse_trial
from trials.trainer import train

torch.set_num_threads(1)

MEASURE = Measure(gradients="log", eigenvalues="log")
STEPS = 150


def trial(seed: int = 0, **changes: Any) -> TrialSpec:
    return parse_trial({
        "task": "digits", "model": {"name": "mlp", "width": 8, "depth": 1}, "optimizer": {"name": "adam", "lr": 0.003},
        "knobs": {"dropout": {"p": 0.2}}, "schedule": {"name": "cosine", "warmup": 0.1}, "budget": {"steps": STEPS},
        "batch_size": 16, "precision": "float64", "seed": seed, **changes})


def rows(emitted: Emitted) -> list[list[dict[str, Any]]]:
    """All that was emitted, without times."""
    return [[{name: value for name, value in row.items() if name not in ("elapsed", "wall_time", "lanes")}
             for row in table] for table in ([emitted.trial], emitted.steps, emitted.layers, emitted.spectra)]


@cache
def uninterrupted(seed: int) -> list[list[dict[str, Any]]]:
    """What the trial emits when nothing is saved."""
    return rows(train(trial(seed), MEASURE))


def same(left: Any, right: Any) -> bool:
    """Equal to rounding, a pack's numbers being held against those alone."""
    if isinstance(left, float) and isinstance(right, float):
        return left == pytest.approx(right, rel=1e-6, abs=1e-12, nan_ok=True)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_alone_it_goes_on_bit_for_bit(at: int) -> None:
    expected, memory = uninterrupted(0), Memory(at)
    assert rows(train(trial(), MEASURE, checkpoints=memory)) == expected  # saving changes nothing
    [saved] = [Checkpoint.from_bytes(data) for data in memory.bytes.values()]
    assert saved is not None and 0 < saved.taken + 1 < STEPS
    taken: list[int] = []
    began = Checkpoint.restore
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "restore", lambda self, *args: (taken.append(self.taken), began(self, *args)))
        assert rows(train(trial(), MEASURE, checkpoints=memory)) == expected
    assert taken == [saved.taken]


def test_lanes_go_on_from_checkpoints_of_other_packs_and_of_trials_alone() -> None:
    specs = [trial(seed) for seed in range(5)]
    memory, alone = Memory(3), Memory(4)
    expected = {spec.trial_id: uninterrupted(spec.seed) for spec in specs}
    list(train_pack(specs[:3], MEASURE, "cpu", 3, memory))
    train(specs[3], MEASURE, checkpoints=alone)
    assert len(memory.bytes) == 3
    memory.bytes.update(alone.bytes)
    starts = {name: saved.taken for name, data in memory.bytes.items() if (saved := Checkpoint.from_bytes(data))}
    assert len(set(starts.values())) == 2 and all(start > 0 for start in starts.values())
    again = [specs[4], specs[1], specs[3], specs[0]]  # one new, one from another place, and lanes at different steps
    found = {spec.trial_id: rows(emitted) for spec, emitted in train_pack(again, MEASURE, "cpu", 4, memory)}
    assert found.keys() == {spec.trial_id for spec in again}
    for name, tables in found.items():
        assert same(tables, expected[name])


def test_the_time_of_a_trial_is_that_of_all_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pack each trial has its share; here a step takes a second."""
    now = 0.0

    class Ticking(Memory):
        def due(self) -> bool:
            nonlocal now
            now += 1.0
            return super().due()

        def go_on(self) -> None:
            if self.asked == self.at:
                raise Stopped

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    specs, steps = [trial(seed) for seed in range(3)], Measure("ends", "none", "none", "none")
    memory, ended = Ticking(31), []
    for some in (specs, specs[:2], specs[:1]):  # in packs of three and of two, then alone
        memory.asked, memory.at = 0, 31 if len(some) > 1 else 11
        with pytest.raises(Stopped):
            ended += list(train_pack(some, steps, "cpu", len(some), memory)) if len(some) > 1 else [
                train(some[0], steps, checkpoints=memory)]
    memory.at = -1
    assert not ended
    left = STEPS - 30 - 30 - 10
    assert train(specs[0], steps, checkpoints=memory).trial["wall_time"] == pytest.approx(
        31 / 3 + 31 / 2 + 11 + left + 1, abs=1.0)
    [(_, pair), _] = train_pack([specs[1], specs[2]], steps, "cpu", 2, memory)
    assert pair.trial["wall_time"] == pytest.approx(31 / 3 + 31 / 2 + (STEPS - 60 + 1) / 2, abs=1.0)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[::-1]])
def test_a_damaged_checkpoint_is_none(damage: Any) -> None:
    memory = Memory(2)
    train(trial(), MEASURE, checkpoints=memory)
    [data] = memory.bytes.values()
    assert Checkpoint.from_bytes(damage(data)) is None


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path: Any) -> None:
    import io
    import pickle

    class Code:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (tmp_path / "ran").write_text, ("code ran",)

    sink = io.BytesIO()
    torch.save({"taken": Code()}, sink)
    assert Checkpoint.from_bytes(sink.getvalue()) is None
    assert Checkpoint.from_bytes(pickle.dumps(Code())) is None
    assert not (tmp_path / "ran").exists()
