"""SIGTERM, as schedulers send it before they kill: what is in training is saved, and goes on where it was."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import driving
import pytest
from conftest import Same
from support import Cli

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

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
  budget: {steps: 15000}
  batch_size: 16
  precision: float64
space:
  seed: {replicates: 2}
measure: {training: log, weights: ends, eigenvalues: last, changes: none}
device: cpu
pack: off
"""


def test_sigterm_saves_what_is_in_training(cli: Cli, same: Same, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.py").write_text(MODEL)
    study, results, whole = tmp_path / "long.yaml", tmp_path / "results", tmp_path / "whole"
    study.write_text(STUDY)

    def passes(folder: str) -> int:
        return sum(path.stat().st_size for path in (tmp_path / folder).iterdir())
    for folder in ("undisturbed", "before", "after"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PASSES", str(tmp_path / "undisturbed"))
    cli("run", study, f"results={whole}", timeout=driving.PATIENCE)
    all_passes = passes("undisturbed")
    assert all_passes >= 2 * 15000
    monkeypatch.setenv("PASSES", str(tmp_path / "before"))
    driver = driving.start("run", study, f"results={results}")
    driving.wait(lambda: passes("before") > 0.4 * all_passes, driver)
    sent = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    out, _ = driving.ended(driver, 130)
    assert time.monotonic() - sent < 30
    assert "the same command continues" in out
    assert driving.committed(results) == 0
    assert len(list((results / ".checkpoints").iterdir())) == 2  # far sooner than each would keep one by itself
    monkeypatch.setenv("PASSES", str(tmp_path / "after"))
    cli("run", study, f"results={results}", timeout=driving.PATIENCE)
    assert passes("before") + passes("after") < 1.05 * all_passes  # beginning anew would make 1.4
    same(results, whole)
