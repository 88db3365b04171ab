"""No verb writes over a file that is not of the kind it writes; none waits for a named pipe; code cannot end one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orchestrator import cli

STUDY = """\
study: own
question: Is it kept?
trial:
  task: {name: digits}
  model: {name: mlp, width: 4}
  optimizer: {name: sgd, lr: 0.1}
  batch_size: 32
  budget: {steps: 1}
space:
  lr: [0.1]
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    torch.save({"fc.weight": torch.randn(12, 8, generator=torch.Generator().manual_seed(0))}, path)
    os.symlink("model.pt", "link.parquet")
    os.link("model.pt", "hard.png")
    os.symlink("model.pt", "link.svg")
    os.mkdir("folder.parquet")
    os.mkfifo("pipe.parquet")
    Path("notes.parquet").write_text("mine")
    Path("notes.rgba").write_text("mine")
    return path


@pytest.mark.parametrize("option, path", [
    ("--parquet", "model.pt"), ("--parquet", "./../{}/model.pt"), ("--parquet", "link.parquet"),
    ("--parquet", "notes.parquet"), ("--parquet", "folder.parquet"), ("--parquet", "pipe.parquet"),
    ("--plot", "hard.png"), ("--plot", "link.svg"), ("--plot", "notes.rgba")])
def test_what_is_of_another_kind_is_not_written_over(model, capsys, option, path):
    before = {place: place.read_bytes() for place in model.parent.iterdir() if place.is_file()}
    path = path.format(model.parent.name)
    assert cli.main(["spectra", "model.pt", option, path]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith(f"phasesweep: {option}: {path} is ")
    assert {place: place.read_bytes() for place in model.parent.iterdir() if place.is_file()} == before


def test_a_study_file_where_a_picture_is_to_go_is_told_from_one(model, capsys):
    Path("own.yaml").write_text(STUDY)
    assert cli.main(["spectra", "model.pt", "--plot", "own.yaml"]) == 2
    said = capsys.readouterr().err
    assert "own.yaml is a file that --plot has not written" in said and "a new one, ending in .pdf or .png or" in said
    assert "yaml file" not in said and ".parquet" not in said


def test_what_is_of_its_kind_or_empty_is(model, capsys):
    for name in ("m.parquet", "m.png", "empty.parquet"):
        Path(name).touch()
        for _ in range(2):
            assert cli.main(["spectra", "model.pt", "--plot" if name == "m.png" else "--parquet", name]) == 0
        assert Path(name).stat().st_size > 1000
    assert cli.main(["spectra", "model.pt", "--plot", "./m.png", "--parquet", "m.png"]) == 2
    assert cli.main(["spectra", "model.pt", "--plot", "./new.png", "--parquet", "new.png"]) == 2
    assert not Path("new.png").exists() and "is where --parquet goes" in capsys.readouterr().err


@pytest.mark.parametrize("name, content", [("study.yaml", STUDY), ("summary.csv", "mine"), ("summary.png", "mine")])
def test_a_first_run_replaces_no_file_of_anyone(tmp_path, monkeypatch, capsys, name, content):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(STUDY)
    os.mkdir("R")
    Path("R", name).write_text(content)
    monkeypatch.setattr("orchestrator.run.rehearse", lambda *_: pytest.fail("went on"))
    assert cli.main(["run", "R/study.yaml" if name == "study.yaml" else "s.yaml", "results=R"]) == 2
    assert f"R/{name}: not written by phasesweep" in capsys.readouterr().err
    assert Path("R", name).read_text() == content and os.listdir("R") == [name]


@pytest.mark.parametrize("verb", ["status", "report"])
@pytest.mark.parametrize("name", ["study.yaml", "trials/part-00000.parquet"])
def test_a_named_pipe_in_a_results_folder_is_a_line(tmp_path, verb, name):
    (tmp_path / "r" / "trials").mkdir(parents=True)
    os.mkfifo(tmp_path / "r" / name)
    if name != "study.yaml":
        (tmp_path / "r" / "study.yaml").write_text("# Written by phasesweep\n" + STUDY)
    done = subprocess.run([sys.executable, "-m", "orchestrator.cli", verb, str(tmp_path / "r")], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and name.rpartition("/")[2] in done.stderr


@pytest.mark.parametrize("what, said", [
    ("raise KeyboardInterrupt", "task.py:2"), ("raise KeyboardInterrupt('enough')", "KeyboardInterrupt: enough"),
    ("raise SystemExit(0)", "SystemExit: 0")])
def test_code_that_raises_what_ends_a_process_is_named(tmp_path, what, said):
    (tmp_path / "task.py").write_text(f"def data():\n    {what}\n")
    (tmp_path / "s.yaml").write_text(STUDY.replace("name: digits", "name: 'task.py:data'"))
    done = subprocess.run([sys.executable, "-m", "orchestrator.cli", "plan", "s.yaml"], capture_output=True, text=True,
                          timeout=60, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr and "task.py:2" in done.stderr
