"""Users' code through the installed command and Ray's workers: no trial changes another, the command or its results,
and all trials of a task see the same data."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.cli import main
from search_spaces import load_study
from trials import usercode
from trials.tasks import own
from trials.trainer import train

PHASESWEEP = Path(sys.executable).with_name("phasesweep")
CODE = '''
import math, os, random, subprocess, sys, threading
import numpy as np, torch, trials
import helper
from torch import nn

def data(source="numpy"):
    print("data are made")
    os.chdir("/")
    subprocess.run(["true"], check=True)
    x, y = np.random.randn(60, 4), np.arange(60) % 2
    x[:, 0] += y * helper.SHIFT
    if source == "process" and os.path.basename(sys.argv[0]) != "phasesweep":
        x += os.getpid()
    if source == "edited" and os.path.basename(sys.argv[0]) == "phasesweep":
        with open(helper.__file__, "a") as file:  # as its author may while the run is on
            file.write("# a note")
    return trials.Data(x[:40], y[:40, None], x[40:], y[40:], 2)

def plain(s, o): return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(s), o))
def inplace(s, o): return nn.Sequential(nn.ReLU(inplace=True), *plain(s, o))
def float64(s, o):
    torch.set_default_dtype(torch.float64)
    return plain(s, o)
class Chdir(nn.Module):
    def __init__(self, s, o):
        super().__init__()
        self.body = plain(s, o)
    def forward(self, x):
        os.chdir("/")
        return self.body(x)
def chdir(s, o):
    os.environ["HOME"] = "/nowhere"
    threading.Thread(target=print, args=("a thread",)).start()
    return Chdir(s, o)
def seeded(s, o):
    torch.manual_seed(0)
    return plain(s, o)
def leaves(s, o): sys.exit("enough")
'''
STUDY = """
study: guests
trial:
  task: {name: "m.py:data"}
  model: {name: "m.py:seeded"}
  optimizer: {name: sgd, lr: 0.1}
  batch_size: 8
  budget: {steps: 20}
space:
  model: ["m.py:seeded", "m.py:inplace", "m.py:float64", "m.py:chdir", "m.py:leaves", "m.py:plain"]
  seed: {replicates: 2}
measure: {eigenvalues: none}
pack: off
resources: {cpu: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the study has been run, with results at a relative path; what was printed is in out.txt."""
    here = tmp_path_factory.mktemp("guests")
    (here / "m.py").write_text(CODE)
    (here / "helper.py").write_text("SHIFT = 1.0\n")
    (here / "s.yaml").write_text(STUDY)
    done = subprocess.run([PHASESWEEP, "run", "s.yaml", "results=r"], cwd=here, capture_output=True, text=True,
                          timeout=240)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    (here / "out.txt").write_text(done.stdout)
    return here


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(usercode, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def test_guests_harm_nobody(inside: Path) -> None:
    out = (inside / "out.txt").read_text()
    assert "seeds 0 and 1 start from the same weights" in out and "data are made" not in out
    rows = pd.read_parquet(inside / "r" / "trials").set_index("trial_id")
    lost = int((rows["train_loss"] >= 0.99 * rows["chance_loss"]).sum())  # 20 steps are few
    at_chance = f", {lost} of these at chance: no better than guessing at the end" if lost else ""
    assert f"guests: 10 completed{at_chance}, 2 failed" in out
    failed = rows[rows["status"] == "failed"]
    assert set(failed["model"]) == {"m.py:leaves"}
    assert failed["reason"].str.fullmatch(r"SystemExit: enough \(.*m\.py:\d+\)").all()
    assert rows["data"].nunique() == 1 and rows["code"].nunique() == 1
    study = load_study("s.yaml")
    for spec in study.trials(lambda ids: [None] * len(ids)):
        assert spec is not None
        if spec.model["name"] != "m.py:leaves":  # each as if it were the only one
            alone = train(spec, study.measure).trial
            assert rows.loc[spec.trial_id, "test_loss"] == pytest.approx(alone["test_loss"], rel=1e-6)


@pytest.mark.parametrize(("file", "old", "new", "said"), [
    ("helper.py", "1.0", "1.00", ["ran before your model or task file was changed, or what it imports beside it"]),
    ("helper.py", "1.0", "-1.0", ["ran before your model or task file was changed, or what it imports beside it",
                                  "ran on other data than your task gives now"]),
])
def test_what_has_changed_since_is_told_of(inside: Path, capsys: pytest.CaptureFixture[str], file: str, old: str,
                                           new: str, said: list[str]) -> None:
    text = (inside / file).read_text()
    words = ["run", "s.yaml", "results=r", 'space.model=["m.py:plain","m.py:inplace"]']
    assert main(words) == 0
    assert "ran before" not in capsys.readouterr().out
    (inside / file).write_text(text.replace(old, new))
    try:
        assert main(words) == 0
    finally:
        (inside / file).write_text(text)
    told = [line for line in capsys.readouterr().out.splitlines() if "finished trials" in line]
    assert told == [f"10 finished trials {what}; they are kept as they are. To run them again give another results=PATH"
                    for what in said]


def test_other_data_in_a_worker_end_the_run(folder: Path) -> None:
    done = subprocess.run([PHASESWEEP, "run", "s.yaml", "results=other", "trial.task.source=process",
                           'space.model=["m.py:plain"]'], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("phasesweep: trial.task: m.py:data (source process) gave other data than before; a task ")
    assert "Traceback" not in done.stdout + done.stderr


def test_code_that_is_edited_before_a_worker_reads_it_ends_the_run(folder: Path) -> None:
    before = (folder / "helper.py").read_text()
    try:
        done = subprocess.run([PHASESWEEP, "run", "s.yaml", "results=edited", "trial.task.source=edited",
                               'space.model=["m.py:plain"]'], cwd=folder, capture_output=True, text=True, timeout=240)
    finally:
        (folder / "helper.py").write_text(before)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == (
        "phasesweep: trial: m.py, or what it imports beside it, was changed after the run began; leave these files "
        "alone while it is on. Finished trials are kept: the same command goes on from them, with the new code")


@pytest.mark.parametrize(("lines", "said"), [
    ("x[3, 1] = np.nan", r"trial\.task\.name: m\.py:data: x_train has 1 of 160 values that .* \[3, 1\].*"),
    ("y = y + 1", r"trial\.task\.name: m\.py:data: y_train holds labels from 1 to 2, .*"),
    ("y = y[:, None] + [0, 0]", r".*y_train has shape \(40, 2\).*y\.argmax\(1\)"),
    ("sys.exit(3)", r"trial\.task: m\.py:data failed: SystemExit: 3 \(.*m\.py:5\)"),
])
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_data_that_cannot_be_trained_on_are_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, lines: str,
        said: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("m.py").write_text("import sys, numpy as np, trials\ndef data():\n"
                            f"    x, y = np.random.randn(60, 4), np.arange(60) % 2\n    print('hello')\n    {lines}\n"
                            "    return trials.Data(x[:40], y[:40], x[40:], y[40:], 2)\n")
    Path("s.yaml").write_text(STUDY)
    assert main([verb, "s.yaml", "trial.model=mlp", "space={lr: [0.1, 0.2]}"]) == 2
    found = capsys.readouterr()
    assert re.fullmatch(f"phasesweep: s.yaml: {said}\n", found.err.replace("hello\n", ""))
    assert not found.out and not Path("results").exists()


def test_an_axis_over_a_parameter_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("m.py").write_text("from torch import nn\n"
                            "def net(s, o, **how): return nn.Sequential(nn.Flatten(), nn.Linear(64, o))\n")
    Path("s.yaml").write_text(STUDY)
    words = ["plan", "s.yaml", "trial.task=digits", "space={model.width: [1, 2]}"]
    assert main([*words, "trial.model={name: 'm.py:net'}"]) == 2
    assert capsys.readouterr().err.endswith("space.model.width: model takes parameters of any name (**); give "
                                            "trial.model.width a value, which the axis then replaces\n")
    assert main([*words, "trial.model={name: 'm.py:net', width: 3}"]) == 0
    assert own.known() == {}
