"""Checkpoints beside the results: who may use them, and a long trial that is killed half way."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import driving
import pandas as pd
import pytest
import torch
from support import Cli, Tables
from trained import trained

from orchestrator.checkpoints import FolderCheckpoints, Leftovers
from orchestrator.folder import Folder
from trials.checkpoint import Checkpoint
from trials.errors import UserError
from trials.spec import TrialSpec, parse_trial
from trials.tasks import own

STUDY = """
study: long
question: Does a trial that was killed go on where it was?
trial:
  task: digits
  model: "slow.py:build"
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
  budget: {steps: 100}
  precision: float64
space:
  seed: {replicates: 2}
measure: {training: log, weights: ends, eigenvalues: none, changes: none}
device: cpu
"""
CHECKPOINT = Checkpoint(taken=7, params={"w": torch.ones(2)}, buffers={}, state={"momentum": {"w": torch.zeros(2)}},
                        kept={}, memory={}, generators={}, notes="{}")


def spec(seed: int = 0) -> TrialSpec:
    return parse_trial({"task": "digits", "model": "mlp", "optimizer": "sgd", "budget": {"steps": 5}, "seed": seed})


def test_kept_for_the_same_trial_code_and_measurements_until_it_is_done(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path)
    folder.write("study.yaml", b"")
    FolderCheckpoints(folder, "a", 0.0).save(spec(), CHECKPOINT)
    found = FolderCheckpoints(folder, "a", 0.0).load(spec())
    assert found is not None and found.taken == 7 and torch.equal(found.params["w"], torch.ones(2))
    assert FolderCheckpoints(folder, "b", 0.0).load(spec()) is None
    assert FolderCheckpoints(folder, "a", 0.0).load(spec(1)) is None
    Leftovers(folder, [spec(1).trial_id])
    assert FolderCheckpoints(folder, "a", 0.0).load(spec()) is not None
    Leftovers(folder, [spec().trial_id])
    assert FolderCheckpoints(folder, "a", 0.0).load(spec()) is None


def test_a_checkpoint_of_other_data_does_not_count(tmp_path: Path) -> None:
    """A user's task whose file has changed since: half of the training would be on other data than the rest."""
    folder = Folder.open(tmp_path)
    folder.write("study.yaml", b"")
    theirs = dataclasses.replace(spec(), task={"name": "m.py:task"})
    for data, there in (("old", True), ("new", False)):
        own.expect({json.dumps(theirs.task): data})
        if there:
            FolderCheckpoints(folder, "a", 0.0).save(theirs, CHECKPOINT)
        assert (FolderCheckpoints(folder, "a", 0.0).load(theirs) is not None) == there
    own.expect({})


def test_where_the_results_cannot_be_seen_nothing_is_kept_or_made(tmp_path: Path) -> None:
    checkpoints = FolderCheckpoints(Folder.open(tmp_path / "elsewhere"), "a", 0.0)
    assert not checkpoints.due() and checkpoints.load(spec()) is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_lost_while_it_is_looked_at_keeps_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.open(tmp_path)
    folder.write("study.yaml", b"")
    FolderCheckpoints(folder, "a", 0.0).save(spec(), CHECKPOINT)
    real = Folder.list

    def lost_below(self: Folder, sub: str = "") -> list[str]:
        if sub:
            raise UserError("the driver's node does not answer")
        return real(self, sub)

    monkeypatch.setattr(Folder, "list", lost_below)
    lost = FolderCheckpoints(folder, "a", 0.0)
    assert not lost.due() and lost.load(spec()) is None


def test_time_between_two(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").touch()
    assert not FolderCheckpoints(Folder.open(tmp_path), "a", 60.0).due()
    often = FolderCheckpoints(Folder.open(tmp_path), "a", 0.01)
    time.sleep(0.02)
    assert often.due() and not often.due()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driving.slow_study(tmp_path_factory.mktemp("study"), STUDY)


@pytest.fixture(scope="module")
def whole(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the study that nobody disturbed."""
    return trained(study, tmp_path_factory.mktemp("whole") / "results")


@pytest.mark.parametrize("pack", ["off", "auto"])
def test_killed_half_way_it_goes_on(
        pack: str, study: Path, whole: Path, cli: Cli, stored: Tables, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    with driving.slowly(study):
        driver = driving.start("run", study, f"pack={pack}", f"results={killed}", command=driving.OFTEN)
        driving.wait(lambda: driving.kept(killed), driver, 120)
        driving.kill(driver)
    assert driving.kept(killed), "the trials were done before they could be killed"
    assert not list(killed.glob("trials/*.parquet")) or pd.read_parquet(killed / "trials").empty
    time.sleep(1.0)  # the workers of a dead driver end by themselves
    cli("run", study, f"pack={pack}", f"results={killed}")
    assert not list(killed.glob(".checkpoints/*"))
    for table, frame in stored(whole).items():
        pd.testing.assert_frame_equal(stored(killed)[table], frame, rtol=1e-7)


SCRIPT = """
import contextlib
import sys
import ray
from cluster import Connection
from cluster.local import connect
from orchestrator.checkpoints import FolderCheckpoints
from orchestrator.distant import Distant, keeper
from orchestrator.folder import Folder
from test_checkpoints import CHECKPOINT, spec
from trials.errors import UserError

with connect() as connection:
    folder = Folder.open(sys.argv[1])
    assert keeper(folder, connection) is None  # every process of this machine sees it
    actor = keeper(folder, Connection("a cluster", False, 1, 1.0, 0.0))
    away = Folder.open(sys.argv[1] + "-elsewhere")
    distant = Distant(actor)
    FolderCheckpoints(away, "a", 0.0, distant=distant).save(spec(), CHECKPOINT)
    found = FolderCheckpoints(away, "a", 0.0, distant=distant).load(spec())
    assert found is not None and found.taken == 7
    assert FolderCheckpoints(away, "a", 0.0, distant=distant).load(spec(1)) is None
    assert FolderCheckpoints(folder, "a", 0.0).load(spec()).taken == 7
    ray.kill(actor)
    with contextlib.suppress(UserError):
        while distant.list():  # it lives on for a moment
            pass
    lost = FolderCheckpoints(away, "a", 0.0, distant=distant)
    assert not lost.due() and lost.load(spec()) is None
    lost.save(spec(), CHECKPOINT)
"""


def test_a_node_that_does_not_see_the_results_keeps_them_by_way_of_the_drivers(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "study.yaml").touch()
    tests = os.pathsep.join(map(str, (Path(__file__).parent, *Path(__file__).parents[1:3])))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "results")], capture_output=True, text=True,
                          timeout=240, env={**os.environ, "PYTHONPATH": tests})
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "results-elsewhere").exists()
