"""How many lanes are best: what is chosen from timings, what is remembered, and where trials go one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import lane_count
from orchestrator.lane_count import FIRST, Choice, choose
from trials.packs.lanes import Lanes
from trials.spec import TrialSpec, parse_trial

torch.set_num_threads(1)


def trial(**changes: Any) -> TrialSpec:
    return parse_trial({
        "task": "digits", "model": {"name": "mlp", "width": 2, "depth": 1}, "optimizer": {"name": "sgd", "lr": 0.05},
        "budget": {"steps": 40}, "batch_size": 2, **changes})


class Clock:
    """Says how long a step takes; ``tried`` are the lanes it was asked for, 1 for a trial alone."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds = seconds
        self.tried: list[int] = []

    def __call__(self, step: Callable[[], object], device: str) -> float:
        training: Any = step.__self__  # type: ignore[attr-defined]
        lanes = training.count if isinstance(training, Lanes) else 1
        self.tried.append(lanes)
        return self.seconds(lanes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[int], float]], Clock]:
    """Put a clock in place of the real one, and the cache in a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Lanes, "_check", lambda self: None)  # nothing is trained

    def put(seconds: Callable[[int], float]) -> Clock:
        timer = Clock(seconds)
        monkeypatch.setattr(lane_count, "_seconds", timer)
        return timer
    return put


def cached(folder: Path) -> list[Path]:
    return list((folder / "phasesweep" / "lanes").glob("*"))


def best_at(best: int) -> Callable[[int], float]:
    """A step alone takes 100 us; of a pack it takes each trial 10 us and less up to ``best`` lanes, and more after."""
    return lambda lanes: 1e-4 if lanes == 1 else lanes * 1e-5 * max(32 / lanes, 32 * lanes / best**2)


@pytest.mark.parametrize("best", [32, 64, 128, 256])
def test_the_best_number_of_lanes_is_chosen_and_remembered(
        best: int, clock: Callable[..., Clock], tmp_path: Path) -> None:
    timer = clock(best_at(best))
    found = choose(trial(), "cpu", 10_000)
    assert found.lanes == best
    assert timer.tried == [1, *(lanes for lanes in (32, 64, 128, 256) if lanes <= 2 * best)]
    assert found.alone == 1e-4 and found.seconds == pytest.approx(32e-5 / best)
    assert found.words == f"{best} side by side ({320 / best:.0f} us a step and trial; alone 100)"
    assert len(cached(tmp_path)) == 1
    again = clock(best_at(32))
    assert choose(trial(), "cpu", 10_000) == found
    assert choose(trial(seed=3, optimizer={"name": "sgd", "lr": 1.0}), "cpu", 99) == found  # numbers do not matter
    assert again.tried == []


def test_twice_the_lanes_for_hardly_less_are_not_worth_it(clock: Callable[..., Clock]) -> None:
    clock(lambda lanes: 1e-4 if lanes == 1 else lanes * (1e-5 if lanes == 32 else 0.96e-5))
    assert choose(trial(), "cpu", 10_000).lanes == 32


@pytest.mark.parametrize("changes", [
    {"batch_size": 4}, {"model": {"name": "mlp", "width": 3}}, {"precision": "float64"}, {"knobs": {"dropout": {}}},
    {"optimizer": {"name": "adam"}}])
def test_another_structure_is_timed_anew(changes: dict[str, Any], clock: Callable[..., Clock], tmp_path: Path) -> None:
    timer = clock(best_at(32))
    choose(trial(), "cpu", 100)
    choose(trial(**changes), "cpu", 100)
    assert timer.tried == [1, 32, 64] * 2 and len(cached(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["", "{", "null", "[]", '{"lanes": 3}', '{"lanes": 3, "alone": 1.0, "more": 2}',
                                    "\x00\x01"])
def test_a_damaged_cache_is_ignored_and_mended(damage: str, clock: Callable[..., Clock], tmp_path: Path) -> None:
    clock(best_at(64))
    found = choose(trial(), "cpu", 1000)
    [file] = cached(tmp_path)
    file.write_text(damage)
    timer = clock(best_at(64))
    assert choose(trial(), "cpu", 1000) == found and timer.tried
    assert Choice(**json.loads(file.read_text())) == found


def test_without_a_cache_it_is_timed_every_time(clock: Callable[..., Clock], tmp_path: Path) -> None:
    timer = clock(best_at(32))
    (tmp_path / "phasesweep").write_text("a file where a folder should be")
    for _ in range(2):
        assert choose(trial(), "cpu", 1000).lanes == 32
    assert timer.tried == [1, 32, 64] * 2


def test_where_packing_does_not_pay_trials_go_one_by_one(clock: Callable[..., Clock], tmp_path: Path) -> None:
    timer = clock(lambda lanes: lanes * 2e-4)
    found = choose(trial(), "cpu", 1000)
    assert (found.lanes, found.seconds, found.reason) == (1, 2e-4, "") and timer.tried == [1, 32]
    assert found.words == "one by one (a step takes 200 us; in a pack no less)"
    assert len(cached(tmp_path)) == 1


def test_what_cannot_be_packed_goes_one_by_one_and_says_why(
        clock: Callable[..., Clock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = clock(best_at(64))
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        return super().forward(x.flatten(1)) if x.sum().item() else x\n"
        "def net(shape, outputs):\n    return Net(64, outputs)\n")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(lane_count, "_seconds", timer)
    spec = trial(model={"name": f"{tmp_path / 'net.py'}:net"})
    found = choose(spec, "cpu", 1000)
    assert found.lanes == 1 and found.reason.startswith("the model reads numbers into Python (if, float(), .item())")
    assert found.words == f"one by one: {found.reason}" and "vmap" not in found.words
    assert choose(spec, "cpu", 1000) == found and timer.tried == [1]
    assert not cached(tmp_path)  # but for as long as this process lives


def test_memory_that_runs_out_ends_the_search(clock: Callable[..., Clock], tmp_path: Path) -> None:
    def seconds(lanes: int) -> float:
        if lanes > 64:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return best_at(256)(lanes)
    clock(seconds)
    found = choose(trial(), "cpu", 1000)
    assert found.lanes == 64 and not found.reason and not cached(tmp_path)


@pytest.mark.parametrize("room", [1, 4, 8])
def test_memory_that_runs_out_at_once_is_tried_with_less_and_another_time(
        room: int, clock: Callable[..., Clock], tmp_path: Path) -> None:
    """Others may use the GPU just now."""
    def seconds(lanes: int) -> float:
        if lanes > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return best_at(256)(lanes)
    timer = clock(seconds)
    found = choose(trial(), "cpu", 1000)
    assert found.lanes == room and timer.tried[:3] == [1, 32, 16] and not cached(tmp_path)
    assert found.reason == ("memory runs out with two side by side" if room == 1 else "")
    clock(best_at(64))
    assert choose(trial(), "cpu", 1000).lanes == 64


@pytest.mark.parametrize("pays", [True, False])
def test_few_trials_say_nothing_of_many(pays: bool, clock: Callable[..., Clock], tmp_path: Path) -> None:
    """Neither that so few are best, nor that it does not pay to pack so few."""
    timer = clock(lambda lanes: 1e-4 if pays or lanes == 1 else 9e-4)
    few = choose(trial(), "cpu", 8)
    assert few.lanes == (8 if pays else 1) and timer.tried == [1, 8] and not cached(tmp_path)
    assert choose(trial(), "cpu", FIRST - 1).lanes == FIRST - 1 and not cached(tmp_path)
    many = choose(trial(), "cpu", 1000)
    assert many.lanes == 256 and len(cached(tmp_path)) == 1
    assert choose(trial(), "cpu", 8) == many  # who asks for them trains as many as there are


def test_more_are_not_tried_than_there_are(clock: Callable[..., Clock], tmp_path: Path) -> None:
    timer = clock(best_at(256))
    assert choose(trial(), "cpu", 100).lanes == 64 and timer.tried == [1, 32, 64]
    assert not cached(tmp_path)  # more might be better still


def test_a_number_that_the_study_names_is_taken(clock: Callable[..., Clock], tmp_path: Path) -> None:
    timer = clock(best_at(64))
    assert choose(trial(), "cpu", 1000, wanted=7).lanes == 7 and timer.tried == [1, 7]
    assert choose(trial(), "cpu", 5, wanted=7).lanes == 5
    assert choose(trial(), "cpu", 1000, wanted=1).lanes == 1
    assert not cached(tmp_path)


def test_tiny_trials_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real clock."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(lane_count, "SECONDS", 0.005)
    found = choose(trial(), "cpu", 64)
    assert found.lanes >= 32 and found.seconds < found.alone / 3  # ten times less, on any machine; 64 are hardly faster
