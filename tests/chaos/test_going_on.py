"""What is in training goes on where it was: after a SIGTERM, as schedulers send it before they kill, and where its
worker dies."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import driving
import pytest
from conftest import Same
from support import Cli

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

STEPS = 15000
# Counts its passes where it is trained: a byte for each, in a file of the process.
MODEL = """
import os
from torch import nn

class Counted(nn.Flatten):
    def forward(self, x):
        with open(os.path.join(os.environ["PASSES"], str(os.getpid())), "ab", buffering=0) as file:
            file.write(b".")
        return super().forward(x)

def net(input_shape, outputs):
    return nn.Sequential(Counted(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))
"""
STUDY = """
study: long
trial:
  task: digits
  model: {name: "m.py:net"}
  optimizer: {name: sgd, lr: 0.02, momentum: 0.5}
  budget: {steps: STEPS}
  batch_size: 16
  precision: float64
space:
  seed: {replicates: 2}
measure: {training: log, weights: ends, eigenvalues: last, changes: none}
device: cpu
pack: off
""".replace("STEPS", str(STEPS))


class Passes:
    """Forward passes of the drivers that are started while this is the latest one made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        folder.mkdir()
        monkeypatch.setenv("PASSES", str(folder))

    @property
    def count(self) -> int:
        return sum(path.stat().st_size for path in self._folder.iterdir())


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    (folder / "m.py").write_text(MODEL)
    (folder / "long.yaml").write_text(STUDY)
    return folder / "long.yaml"


@pytest.fixture(scope="module")
def undisturbed(long: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The results of ``long``, and how many passes they take."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        passes = Passes(folder / "passes", monkeypatch)
        cli("run", long, f"results={folder / 'results'}", timeout=driving.PATIENCE)
    assert passes.count >= 2 * STEPS
    return folder / "results", passes.count


def test_sigterm_saves_what_is_in_training(long: Path, undisturbed: tuple[Path, int], cli: Cli, same: Same,
                                           tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, all_passes = undisturbed
    before, results = Passes(tmp_path / "before", monkeypatch), tmp_path / "results"
    driver = driving.start("run", long, f"results={results}")
    driving.wait(lambda: before.count > 0.4 * all_passes, driver)
    sent = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    out, _ = driving.ended(driver, 130)
    assert time.monotonic() - sent < 30
    assert "the same command continues" in out
    assert driving.committed(results) == 0
    assert len(list((results / ".checkpoints").iterdir())) == 2  # far sooner than each would keep one by itself
    after = Passes(tmp_path / "after", monkeypatch)
    cli("run", long, f"results={results}", timeout=driving.PATIENCE)
    assert before.count + after.count < 1.05 * all_passes  # beginning anew would make 1.4
    same(results, whole)


def test_workers_that_are_killed_cost_what_came_after_their_checkpoints(
        long: Path, undisturbed: tuple[Path, int], same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, all_passes = undisturbed
    passes, results = Passes(tmp_path / "passes", monkeypatch), tmp_path / "results"
    driver = driving.start("run", long, f"results={results}", command=driving.OFTEN)
    driving.wait(lambda: passes.count > 0.6 * all_passes, driver)
    workers = driving.workers(driver)
    assert len(workers) == len(driving.kept(results)) == 2
    for worker in workers:
        worker.kill()
    driving.ended(driver, 0)
    assert passes.count < 1.2 * all_passes  # beginning anew would make 1.6
    same(results, whole)
