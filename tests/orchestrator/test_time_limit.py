"""resources.seconds: a trial that takes longer fails and says so, and its neighbours get their results."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support import Cli

from orchestrator.queue import Pack
from orchestrator.time_limit import TimeUp, time_limit, within
from orchestrator.worker import Job, Worker
from search_spaces import load_study
from trials.errors import UserError
from trials.measure import Measure
from trials.spec import TrialSpec, parse_trial

torch.set_num_threads(1)
pytestmark = pytest.mark.timeout(300, method="thread")  # the alarm is what is tested

NET = """
import math, time, torch
from torch import nn
class Net(nn.Module):
    def __init__(self, inputs, outputs, how):
        super().__init__()
        self.flat, self.layer, self.how = nn.Flatten(), nn.Linear(inputs, outputs), how
    def forward(self, x):
        if self.how == "sleeps":
            time.sleep(3600)
        while self.how == "catches":
            try:
                time.sleep(3600)
            except BaseException:
                self.how = "caught"
        while self.how == "caught":
            pass
        if self.how == "stuck":
            sum(range(10**15))  # one call of C, with the interpreter's lock, for a year
        return self.layer(self.flat(x))
def net(shape, outputs, how):
    return Net(math.prod(shape), outputs, how)
"""
STUDY = """
study: hangs
trial:
  task: digits
  model: {name: "net.py:net", how: fine}
  optimizer: {name: sgd, lr: 0.05}
  budget: {steps: 5}
  batch_size: 8
space:
  model.how: [fine, sleeps, stuck]
measure: {weights: ends, eigenvalues: none}
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "hangs.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def trial(folder: Path, how: str, seed: int) -> TrialSpec:
    return parse_trial({
        "task": "digits", "model": {"name": f"{folder / 'net.py'}:net", "how": how},
        "optimizer": {"name": "sgd", "lr": 0.05}, "budget": {"steps": 5}, "batch_size": 8, "seed": seed})


def quiet() -> bool:
    """Whether no alarm is set any more."""
    return signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_block_that_takes_longer_is_interrupted() -> None:
    began = time.monotonic()
    with pytest.raises(TimeUp), time_limit(0.1):
        time.sleep(60)
    assert time.monotonic() - began < 30 and quiet()


def test_one_that_does_not_is_left_alone() -> None:
    with time_limit(60.0):
        assert not quiet()
    with time_limit(0.0):
        assert quiet()
    assert quiet()


def test_one_that_catches_everything_is_interrupted_again() -> None:
    caught = 0
    with pytest.raises(TimeUp), time_limit(0.1):
        try:
            time.sleep(60)
        except BaseException:
            caught += 1
        time.sleep(60)
    assert caught == 1 and quiet()


def test_time_between_two_items_does_not_count() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        time.sleep(60)
    found = []
    with pytest.raises(TimeUp):
        for item in within(2.0, items()):
            assert quiet()
            time.sleep(1.1)
            found.append(item)
    assert found == [1, 2] and quiet()
    assert list(within(0.0, iter("ab"))) == ["a", "b"]


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("how", ["sleeps", "catches"])
def test_a_trial_that_hangs_fails_alone_and_in_a_pack(how: str, lanes: int, folder: Path) -> None:
    specs = [trial(folder, kind, seed) for kind in (how, "fine") for seed in range(2)]
    worker = Worker.__new__(Worker)  # without Ray
    worker.job = Job(Measure("ends", "none", "none", "none"), {}, (), 1.0, 3, lanes, 60.0, str(folder),
                     str(folder), str(folder), None, 1.5)
    worker.reset_config({"pack": Pack(1, {spec.trial_id: spec for spec in specs},
                                      {spec.trial_id: 0 for spec in specs})})
    found: dict[str, list[Any]] = {}
    for spec, emitted, attempts in worker.results:
        found.setdefault(spec.model["how"], []).append((emitted.trial["status"], emitted.trial["reason"], attempts))
    assert found == {how: [("failed", "took longer than resources.seconds: 1.5 s", 1)] * 2,
                     "fine": [("completed", None, 1)] * 2}


def test_one_stuck_in_c_takes_its_worker_and_nobody_else_with_it(folder: Path, cli: Cli) -> None:
    done = cli("run", "hangs.yaml", "resources.seconds=3", "results=results", status=1)
    trials = pd.read_parquet(folder / "results" / "trials").set_index("model_how")
    assert len(trials) == 3 and trials.loc["fine", "status"] == "completed"
    for how in ("sleeps", "stuck"):
        assert trials.loc[how, "status"] == "failed"
        assert trials.loc[how, "reason"] == "took longer than resources.seconds: 3 s"
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_one_that_hangs_where_none_can_be_trained_is_said_before_anything_is_made(
        verb: str, folder: Path, cli: Cli) -> None:
    done = cli(verb, "hangs.yaml", "space.model.how=[sleeps]", "resources.seconds=1", "results=results", status=2)
    assert done.stderr == "phasesweep: trial: its first step took longer than resources.seconds: 1 s\n"
    assert not (folder / "results").exists()


@pytest.mark.parametrize("value", ["-1", "soon", ".inf", "true"])
def test_what_is_no_time_is_refused(value: str, folder: Path) -> None:
    with pytest.raises(UserError, match=r"resources\.seconds: expected a number of at least 0, got"):
        load_study("hangs.yaml", [f"resources.seconds={value}"])


def test_it_is_no_part_of_a_trial(folder: Path) -> None:
    short, long = (load_study("hangs.yaml", [f"resources.seconds={seconds}"]) for seconds in (1, 2))
    assert [spec and spec.trial_id for spec in short.trials(lambda ids: [])] \
        == [spec and spec.trial_id for spec in long.trials(lambda ids: [])]
    assert "seconds: 2.0" in long.resolved()
