"""What a sweep survives, and what is lost.

| fault | lost at most | the test |
|---|---|---|
| driver killed (-9) | since a trial's last checkpoint | test_kills; test_resume; test_checkpoints |
| SIGINT, SIGTERM | nothing | test_resume; test_going_on |
| worker killed, out of memory | since its trials' last checkpoints | test_going_on; test_resume; here |
| a trial kills each worker, or asks for too much memory | that trial fails and says why | here |
| a trial hangs | that trial fails after resources.seconds | here |
| NaN, an exploding loss | nothing: it diverged | here; trials/test_trainer, trials/test_packs |
| a model or knob that raises | that trial fails and says why | test_usercode_run; test_worker |
| host killed, its cable pulled, head killed | as a worker, a driver | test_two_hosts |
| power cut between or within two writes | the commit that was cut short | test_storage; test_store |
| a part cut short, a bit flipped | its trials run again | test_storage; test_store |
| a checkpoint half written, or a bit of it flipped | that checkpoint | here |
| disk full, or read-only | what was not committed | test_storage; test_usercode_run; test_bad_input |
| two drivers at once | nothing: one is refused | here; test_lease |
| clock set back or forward | nothing | test_clock; test_lease |
| wrong token, head or version | nothing | cluster/test_existing |
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import driving
import pandas as pd
import pytest
import torch
from conftest import Same
from support import Cli

from orchestrator.checkpoints import FolderCheckpoints
from orchestrator.cli import main
from orchestrator.folder import Folder
from trials import generators
from trials.checkpoint import Checkpoint
from trials.spec import parse_trial

MODEL = """
import math, os, signal, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs, outputs, how):
        super().__init__()
        self.layer, self.how = nn.Linear(inputs, outputs), how

    def forward(self, x):
        if self.how == "greedy":
            torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine has, so that none is harmed
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        if self.how == "hangs":
            time.sleep(3600)
        return self.layer(x.flatten(1)) * (math.nan if self.how == "nan" else 1)

def net(input_shape, outputs, how="fine"):
    return Net(math.prod(input_shape), outputs, how)
"""
STUDY = """
study: bad
trial:
  task: digits
  model: {name: "m.py:net"}
  optimizer: {name: sgd, lr: 0.1}
  budget: {steps: 20}
space:
  how: [fine, greedy, killed, nan]
measure: {training: ends, weights: none, eigenvalues: none, changes: none}
retries: 0
"""


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "m.py").write_text(MODEL)
    (tmp_path / "bad.yaml").write_text(STUDY)
    return tmp_path / "bad.yaml"


def fates(results: Path) -> pd.DataFrame:
    frame = pd.read_parquet(results / "trials").set_index("model_how").sort_index()
    assert frame["trial_id"].is_unique
    return frame


def test_trials_that_use_up_memory_fail_by_themselves(bad: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("run", bad, f"results={tmp_path / 'r'}", status=1)
    assert done.stderr == "" and "Traceback" not in done.stdout
    trials = fates(tmp_path / "r")
    assert trials["status"].to_dict() == {"fine": "completed", "greedy": "failed", "killed": "failed",
                                          "nan": "failed"}
    assert "not finite before any training" in trials.loc["nan", "reason"]
    reason = trials.loc["greedy", "reason"]
    assert "memory" in reason and "m.py" in reason and "\n" not in reason
    assert trials.loc["killed", "reason"] == \
        "WorkerLost: the worker process was killed from outside, or ended without a word"
    assert "bad: 1 completed, 3 failed" in done.stdout


def test_a_trial_that_hangs_fails_when_its_time_is_over(bad: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("run", bad, f"results={tmp_path / 'r'}", "space.how=[fine,hangs]", "resources.seconds=5", status=1)
    assert done.stderr == ""
    trials = fates(tmp_path / "r")
    assert trials["status"].to_dict() == {"fine": "completed", "hangs": "failed"}
    assert re.search(r"\b5\b.*(seconds|s\b)", trials.loc["hangs", "reason"]), trials.loc["hangs", "reason"]


# Imports everything, so that all who wait for the file go at once.
TOGETHER = """
import os, sys, time
from orchestrator import cli
import orchestrator.commands.run
open(sys.argv[1] + "." + str(os.getpid()), "w").close()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.001)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("left", [False, pytest.param(True, marks=pytest.mark.chaos)],
                         ids=["nobody before", "after one that was killed"])
def test_of_two_drivers_that_start_at_once_one_goes_on(left: bool, small: Path, small_undisturbed: Path, same: Same,
                                                       tmp_path: Path) -> None:
    results, go = tmp_path / "results", tmp_path / "go"
    if left:
        dead = subprocess.Popen([sys.executable, "-c", "import time; from orchestrator.folder import Folder\n"
                                 f"from orchestrator.lease import Lease\nwith Lease(Folder.open({str(results)!r})):\n"
                                 "    time.sleep(600)"])
        driving.wait((results / ".lease").exists)
        dead.kill()
        dead.wait()
    drivers = [driving.start(go, "run", small, f"results={results}", command=[sys.executable, "-c", TOGETHER])
               for _ in range(2)]
    driving.wait(lambda: len(list(tmp_path.glob("go.*"))) == 2)
    go.touch()
    driving.wait(lambda: any(driver.poll() is not None for driver in drivers))
    first, second = sorted(drivers, key=lambda driver: driver.poll() is None)
    assert re.search(rf"another driver \(host \S+, pid {second.pid}, .*\) runs this study; wait for it, or stop it$",
                     driving.refused(first))
    driving.ended(second, 0)
    same(results, small_undisturbed)


def test_half_a_checkpoint_is_swept(small: Path, small_undisturbed: Path, same: Same, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small_undisturbed, results)
    (results / ".checkpoints").mkdir(exist_ok=True)
    (results / ".checkpoints" / ".0123456789abcdef.another.tmp").write_bytes(b"half")  # its worker was killed
    assert main(["run", str(small), f"results={results}"]) == 0
    same(results, small_undisturbed)


def test_every_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """A trial that went on from wrong numbers would never be found out."""
    spec = parse_trial({"task": "digits", "model": "mlp", "optimizer": "sgd", "budget": {"steps": 5}})
    (tmp_path / "study.yaml").touch()
    checkpoint = Checkpoint(7, {"w": torch.arange(999.0)}, {}, {}, {}, {}, generators.states(),
                            json.dumps({"limit": 1.0}))
    FolderCheckpoints(Folder.open(tmp_path), "stamp", 0.0).save(spec, checkpoint)
    file, = (tmp_path / ".checkpoints").iterdir()
    data, chance, unnoticed = file.read_bytes(), random.Random(0), []
    for _ in range(200):
        at, bit = chance.randrange(len(data)), chance.randrange(8)
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:])
        if FolderCheckpoints(Folder.open(tmp_path), "stamp", 0.0).load(spec) is not None:
            unnoticed.append((at, bit))
    assert unnoticed == []
    file.write_bytes(data)
    assert FolderCheckpoints(Folder.open(tmp_path), "stamp", 0.0).load(spec) is not None
