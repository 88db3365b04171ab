"""A run that is told to stop saves what is in training; one whose Ray is killed keeps it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import driving
import pandas as pd
import processes
import pytest
import torch
from support import Cli, Tables
from trained import trained

from orchestrator import stopping, worker
from orchestrator.checkpoints import FolderCheckpoints
from orchestrator.folder import Folder
from orchestrator.queue import Pack
from orchestrator.signals import Signals
from orchestrator.stopping import Asked
from orchestrator.worker import Job, Worker
from trials.checkpoint import Stopped
from trials.measure import Measure
from trials.packs.pack import train_pack
from trials.records import Rows, schemas
from trials.spec import TrialSpec, column_types, parse_trial
from trials.trainer import train

torch.set_num_threads(1)

Start = Callable[..., "subprocess.Popen[str]"]
MEASURE = Measure("ends", "none", "none", "none")
NET = """
import math, pathlib, time
from torch import nn
class Net(nn.Module):
    def __init__(self, inputs, outputs, width):
        super().__init__()
        self.flat, self.layer, self.width = nn.Flatten(), nn.Linear(inputs, outputs), width
    def forward(self, x):
        if self.training and self.width == 2:
            pathlib.Path(__file__).with_name("asleep").touch()
            time.sleep(3600)
        return self.layer(self.flat(x))
def net(shape, outputs, width):
    return Net(math.prod(shape), outputs, width)
"""
STUDY = """
study: long
trial:
  task: digits
  model: "slow.py:build"
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
  budget: {steps: 100}
  precision: float64
space:
  seed: {replicates: 3}
measure: {training: log, weights: ends, eigenvalues: none, changes: none}
device: cpu
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driving.slow_study(tmp_path_factory.mktemp("study"), STUDY)


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(study, tmp_path_factory.mktemp("undisturbed") / "results")


def trial(seed: int = 0) -> TrialSpec:
    return parse_trial({
        "task": "digits", "model": {"name": "mlp", "width": 8}, "optimizer": {"name": "sgd", "lr": 0.05},
        "budget": {"steps": 50}, "batch_size": 8, "precision": "float64", "seed": seed})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A run into ``results`` in a process of its own; ``before`` is code that it executes first."""
    started: list[subprocess.Popen[str]] = []

    def run(study: Path, *overrides: str, before: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", f"from orchestrator import checkpoints, cli; {before}; cli.console()"]
        started.append(driving.start("run", study, f"results={tmp_path / 'results'}", *overrides, command=command))
        return started[-1]
    yield run
    for driver in started:
        with driver:
            driver.kill()


# Of three trials on two workers one begins late, or waits for a lane. Both signals go to all that are in the session,
# as those of `timeout` and of a terminal that is closed do.
@pytest.mark.parametrize(("pack", "number"), [("off", signal.SIGTERM), ("2", signal.SIGHUP)])
def test_a_signal_saves_what_is_in_training_and_it_goes_on(
        pack: str, number: signal.Signals, study: Path, start: Start, undisturbed: Path, cli: Cli, stored: Tables,
        tmp_path: Path) -> None:
    results = tmp_path / "results"
    with driving.slowly(study):
        driver = start(study, f"pack={pack}", before="import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
                       "checkpoints.SECONDS = 0.5")
        before = driving.wait(lambda: driving.kept(results), driver, 150)
        os.killpg(driver.pid, number)
        said = "".join(driving.ended(driver, 130, 120))
    assert "stopping: trials in training are saved (again to stop at once)" in said
    assert "interrupted; the same command continues" in said and "failed" not in said
    after = driving.kept(results)
    assert all(after[name] > moment for name, moment in before.items())  # once more, at the end
    assert not (results / ".lease").exists()
    cli("run", study, f"pack={pack}", f"results={results}")
    assert not list(results.glob(".checkpoints/*"))
    for table, frame in stored(undisturbed).items():
        pd.testing.assert_frame_equal(stored(results)[table], frame, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("again", [False, True])
def test_workers_that_do_not_answer_are_not_waited_for(
        again: bool, study: Path, start: Start, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    model = "{name: '" + str(tmp_path / "net.py") + ":net', width: 1}"
    driver = start(study, f"trial.model={model}", "space.model.width=[1,2]", "pack=off",
                   before=f"from orchestrator import sweep; sweep.GRACE_SECONDS = {3600 if again else 1}")
    driving.wait((tmp_path / "asleep").exists, driver, 150)
    below = processes.below(driver.pid)
    driver.terminate()
    if again:
        time.sleep(1.0)
        driver.terminate()
    driving.ended(driver, 130, 120)
    assert processes.left_after(60.0, below) == []


def test_one_that_comes_while_ray_starts_says_what_is_kept(study: Path, start: Start, tmp_path: Path) -> None:
    driver = start(study, before="pass")
    assert driver.stdout is not None
    said = [driver.stdout.readline() for _ in range(2)]
    assert said == ["long: 3 of 3 trials to run\n", "trials 0/3 · starting Ray\n"]
    driver.send_signal(signal.SIGINT)
    out, err = driving.ended(driver, 130, 150)
    assert out.endswith("long: 3 still to run\ninterrupted; the same command continues\n") and err == ""


def test_nohup_keeps_what_it_wants() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.caught is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_interrupts_and_then_all_is_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.caught == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_worker_looks_once_a_second_and_no_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def exists(key: str) -> bool:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise ConnectionError("nobody there")
        return key.endswith("a")
    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(stopping.internal_kv, "_internal_kv_exists", exists)
    stop = Asked("a")
    while not stop():
        pass
    assert len(asked) == 2 and asked[1] - asked[0] >= 0.1 and stop()
    assert not Asked("b")()


class Told:
    """Says stop when it has been asked so often."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("seen", [True, False])
def test_trials_stop_between_two_steps_and_are_saved_where_that_can_be(seen: bool, tmp_path: Path) -> None:
    if seen:
        (tmp_path / "study.yaml").touch()

    def checkpoints(at: int) -> FolderCheckpoints:
        return FolderCheckpoints(Folder.open(tmp_path), "a", 3600.0, Told(at))
    with pytest.raises(Stopped):
        train(trial(0), MEASURE, checkpoints=checkpoints(10))
    with pytest.raises(Stopped):
        list(train_pack([trial(1), trial(2), trial(3)], MEASURE, "cpu", 2, checkpoints(10)))
    with pytest.raises(Stopped):
        train(trial(4), MEASURE, checkpoints=checkpoints(1))
    taken = {name: saved.taken if (saved := checkpoints(99).load(trial(name))) else None for name in range(5)}
    assert taken == (dict(enumerate([8, 8, 8, None, None])) if seen else dict.fromkeys(range(5)))
    assert seen or not list(tmp_path.iterdir())


@pytest.mark.parametrize(("lanes", "at", "back"), [(1, 60, 1), (1, 1, 0), (64, 20, 0), (2, 60, 2)])
def test_a_worker_returns_what_is_finished(lanes: int, at: int, back: int, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [trial(seed) for seed in range(4)]
    stop = Told(at)
    monkeypatch.setattr(worker, "Asked", lambda run: stop)
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 3600.0)
    monkeypatch.chdir(tmp_path)  # where the worker goes
    found = Worker.__new__(Worker)  # without Ray
    found.job = job(tmp_path, lanes)
    found.reset_config({"pack": Pack(1, {spec.trial_id: spec for spec in specs},
                                     {spec.trial_id: 0 for spec in specs})})
    result = found.step()
    assert result["done"] and len(result["ids"]) == back
    assert Rows.from_bytes(result["rows"]).tables["trials"]["status"].to_pylist() == ["completed"] * back


def job(folder: Path, lanes: int = 1, retries: int = 1, seconds: float = 0.0) -> Job:
    tables = schemas(column_types(trial().flat()), ["seed"])
    where = str(folder)
    return Job(MEASURE, tables, ("seed",), 1.0, retries, lanes, 60.0, where, where, where, None, seconds)


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_ray_that_is_killed_blames_no_trial(
        part: str, study: Path, start: Start, undisturbed: Path, cli: Cli, stored: Tables, tmp_path: Path) -> None:
    results = tmp_path / "results"
    with driving.slowly(study):
        driver = start(study, "pack=off", "retries=0",
                       before="from orchestrator import presence; checkpoints.SECONDS, presence.MISSES = 0.5, 2")
        driving.wait(lambda: driving.kept(results), driver, 150)
        [victim] = [process for process in processes.below(driver.pid)
                    if process.command.partition(" ")[0].endswith(f"/{part}")]
        victim.kill()
        said = "".join(driving.ended(driver, 2, 120))
    assert "phasesweep: the Ray cluster went away; what is committed stays, and the same command continues once" in said
    assert driving.kept(results)
    assert "failed" not in set(pd.read_parquet(results / "trials")["status"])
    cli("run", study, "pack=off", "retries=0", f"results={results}")
    for table, frame in stored(undisturbed).items():
        pd.testing.assert_frame_equal(stored(results)[table], frame, rtol=1e-9, atol=1e-12)
