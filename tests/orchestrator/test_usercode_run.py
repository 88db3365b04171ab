"""The user's own model and task through the installed command and Ray's workers, from folders that look like traps; and
how runs end whose trials fail, diverge or stop, or whose disk fills up."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from support import Tables, mounted

from orchestrator.cli import main
from trials import usercode

ROOT = Path(__file__).parents[2]
PHASESWEEP = Path(sys.executable).with_name("phasesweep")
OURS = ("analysis", "trials", "search_spaces", "orchestrator", "cluster")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command in this process and in an empty folder; what it complains of, having written nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))

    def complaint(*words: object) -> str:
        assert main([str(word) for word in words]) == 2
        err = capsys.readouterr().err
        assert re.fullmatch(r"phasesweep: [^\n]+\n", err), err
        assert {path.name for path in tmp_path.iterdir()} <= {"m.py", "s.yaml", "__pycache__"}
        return err[len("phasesweep: "):-1]
    return complaint


def run(cwd: Path, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The installed command, started in ``cwd``."""
    done = subprocess.run([PHASESWEEP, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == status, f"exit {done.returncode}, expected {status}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    if status == 2:
        assert re.fullmatch(r"phasesweep: [^\n]+\n", done.stderr)
    else:
        assert not done.stderr
    return done


def trap(folder: Path) -> Path:
    """A folder in which the user has packages called like ours, which cannot be imported."""
    for name in OURS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise ImportError('the {name} of the user')\n")
    return folder


# The example

@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's files in a trap, run there; in float64, so that numbers depend on their pack by rounding alone."""
    here = trap(tmp_path_factory.mktemp("example"))
    for file in (ROOT / "examples").iterdir():
        if file.is_file():
            shutil.copy(file, here)
    study = here / "my_study.yaml"
    study.write_text(study.read_text().replace("trial:\n", "trial:\n  precision: float64\n"))
    run(here, "run", "my_study.yaml")
    return here


def test_the_example_runs_where_the_user_has_folders_called_like_ours(example: Path) -> None:
    for table in ("trials", "steps", "layers"):
        frame = pd.read_parquet(example / "results" / "my_study" / table)
        assert set(frame["model_width"]) == {8, 64} and set(frame["task_noise"]) == {0.02, 0.1}
    trials = pd.read_parquet(example / "results" / "my_study" / "trials")
    assert len(trials) == 8 and set(trials["status"]) == {"completed"} and trials["code"].nunique() == 1
    assert trials.groupby("model_width")["test_accuracy"].mean().diff().iloc[-1] > 0.1  # what the study asks


def test_the_example_is_short() -> None:
    assert len((ROOT / "examples" / "my_study.yaml").read_text().splitlines()) <= 15


def test_it_runs_as_modules_from_another_folder_to_the_same_numbers(
        example: Path, tmp_path: Path, stored: Tables) -> None:
    text = (example / "my_study.yaml").read_text().replace(".py:", ":")
    assert "my_model:build" in text and "my_task:spiral" in text
    (example / "modules.yaml").write_text(text)
    elsewhere = trap(tmp_path / "elsewhere")
    run(elsewhere, "run", example / "modules.yaml", "space.seed.replicates=1", f"results={tmp_path / 'results'}")
    keys = ["model_width", "task_noise", "seed"]
    old, new = (frame.set_index(keys).sort_index() for frame in (
        stored(example / "results" / "my_study")["trials"].query("seed == 0"), stored(tmp_path / "results")["trials"]))
    assert len(new) == 4
    pd.testing.assert_series_equal(new["test_loss"], old["test_loss"], rtol=1e-6)


def test_an_edited_file_is_told_of_and_kept(example: Path, tmp_path: Path) -> None:
    here = tmp_path / "copy"
    shutil.copytree(example, here)
    assert "changed" not in run(here, "run", "my_study.yaml").stdout
    with (here / "my_model.py").open("a") as file:
        file.write("# a thought\n")
    out = run(here, "run", "my_study.yaml").stdout
    assert [line for line in out.splitlines() if "changed" in line] == [
        "8 finished trials ran before your model or task file was changed, or what it imports beside it; they are kept "
        "as they are. To run them again give another results=PATH"]
    assert "my_study: 8 completed" in out


def test_a_damaged_part_is_set_aside_and_its_trials_run_again(example: Path, tmp_path: Path, stored: Tables) -> None:
    here = tmp_path / "copy"
    shutil.copytree(example, here)
    results = here / "results" / "my_study"
    part = results / "layers" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    out = run(here, "run", "my_study.yaml").stdout
    assert "layers/part-00000.parquet is damaged" in out and "8 trials run again" in out
    assert len(list((results / ".damaged").iterdir())) == 4
    for table, frame in stored(example / "results" / "my_study").items():
        pd.testing.assert_frame_equal(stored(results)[table], frame, rtol=1e-6, atol=1e-12)


# Trials that fail, diverge and stop

MODEL = '''
import sys
from torch import nn

def net(input_shape, outputs, how="fine"):
    if how == "raise":
        raise ValueError("no [bold]good[/x]\\nat all")
    if how == "exit":
        sys.exit("enough")
    if how == "number":
        return 3
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3 if how == "narrow" else outputs))
'''
STUDY = """
study: broken
trial:
  task: digits
  model: {name: "m.py:net"}
  optimizer: {name: sgd}
  budget: {epochs: 3, stop_train_loss: 0.3}
space:
  how: [raise, exit, number, narrow, fine]
  lr: [1.0e-3, 0.1, 1.0e+38]
measure: {eigenvalues: none}
"""
FATE = {1e-3: "completed", 0.1: "stopped", 1e38: "diverged"}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder in which the study has been run twice, and what was printed. Before the second time, one of the four
    faults was mended."""
    here = tmp_path_factory.mktemp("broken")
    (here / "m.py").write_text(MODEL)
    (here / "s.yaml").write_text(STUDY)
    first = run(here, "run", "s.yaml", status=1).stdout
    shutil.copytree(here / "results", here / "first")
    (here / "m.py").write_text(MODEL.replace('"raise"', '"mended"'))
    return here, first, run(here, "run", "s.yaml", status=1).stdout


def fates(results: Path) -> pd.DataFrame:
    frame = pd.read_parquet(results / "broken" / "trials")
    assert len(frame) == 15 and frame["trial_id"].is_unique
    return frame.set_index(["model_how", "lr"]).sort_index()


def test_trials_that_fail_say_why_and_harm_no_other(broken: tuple[Path, str, str]) -> None:
    here, out, _ = broken
    trials = fates(here / "first")
    assert trials.loc["fine", "status"].to_dict() == FATE
    failed = trials.drop("fine")
    assert set(failed["status"]) == {"failed"} and set(failed["attempts"]) == {2}
    said = {"raise": rf"ValueError: no \[bold\]good\[/x\] at all \({here}/m.py:7\)",
            "exit": rf"SystemExit: enough \({here}/m.py:9\)",
            "number": "UserError: .* must return a torch.nn.Module, got int.*",
            "narrow": r"UserError: trial\.model: gives an output of shape \(2, 3\) for 2 inputs; .*"}
    for how, reason in said.items():
        assert all(re.fullmatch(reason, text) for text in failed.loc[how, "reason"])
    assert out.endswith("broken: 1 completed, 1 diverged, 1 stopped, 12 failed\n"
                        "the same command tries the failed ones again\n")
    assert "ValueError: no [bold]good[/x]" in out
    assert re.search(r"^failed ┃ because", out, re.MULTILINE)


def test_the_next_run_tries_the_failed_ones_again_and_no_other(broken: tuple[Path, str, str]) -> None:
    here, _, out = broken
    before, after = fates(here / "first"), fates(here / "results")
    assert "12 of 15 trials to run" in out and "6 failed" not in out
    assert after.loc["raise", "status"].to_dict() == FATE == after.loc["fine", "status"].to_dict()
    again = before["finished_at"] < after["finished_at"]
    assert again.drop("fine").all() and not again.loc["fine"].any()
    assert "3 finished trials ran before your model or task file was changed" in out
    assert "broken: 2 completed, 2 diverged, 2 stopped, 9 failed\n" in out
    trials = pd.read_parquet(here / "results" / "broken" / "layers")["trial_id"]
    assert set(trials) <= set(after["trial_id"])


def test_status_shows_failures(broken: tuple[Path, str, str]) -> None:
    here, _, _ = broken
    out = run(here, "status", "s.yaml").stdout
    assert "failed     9; the next run tries them again\nto run     9 of 15\n" in out
    assert "SystemExit: enough" in out


@pytest.mark.parametrize(("how", "said"), [
    ("raise", r"trial: cannot be trained: ValueError: no \[bold\]good\[/x\] at all \(.*/m\.py:7\)"),
    ("exit", r"trial: cannot be trained: SystemExit: enough \(.*/m\.py:9\)"),
    ("number", r"trial\.model\.name: m\.py:net must return a torch\.nn\.Module, got int"),
    ("narrow", r"trial\.model: gives an output of shape \(2, 3\) for 2 inputs; expected \(2, 10\)"),
])
def test_a_model_that_never_works_is_refused_before_anything_is_written(
        refused: Callable[..., str], how: str, said: str) -> None:
    Path("m.py").write_text(MODEL)
    Path("s.yaml").write_text(STUDY)
    for verb in ("plan", "run"):
        assert re.fullmatch(said, refused(verb, "s.yaml", f"space.how=[{how}]"))


WITHOUT_HOW = STUDY.replace("  how: [raise, exit, number, narrow, fine]\n", "")


@pytest.mark.parametrize(("name", "source", "said"), [
    ("nothere.py:net", "", "no file 'nothere.py' in {}"),
    ("nothere:net", "", "module 'nothere' cannot be imported: ModuleNotFoundError: No module named 'nothere'"),
    ("m.py:nett", "def net(i, o): pass", "m.py has no function 'nett'; did you mean 'net'?"),
    ("m.py:net", "\n1/0", "{}/m.py cannot be imported: ZeroDivisionError: division by zero ({}/m.py:2)"),
    ("m.py:net", "import sys\nsys.exit()", "{}/m.py cannot be imported: SystemExit: ({}/m.py:2)"),
    ("m.py:net", "def net(:", "{}/m.py cannot be imported: SyntaxError: invalid syntax (m.py, line 1)"),
    ("m.py:net", "def net(i, o, width=3): pass",
     "m.py:net(i, o, width=3) does not take these parameters: got an unexpected keyword argument 'how'"),
    ("m.py:net", "def net(i): pass", "m.py:net(i) does not take these parameters: too many positional arguments"),
])
def test_files_that_cannot_be_used(refused: Callable[..., str], tmp_path: Path, name: str, source: str,
                                   said: str) -> None:
    Path("m.py").write_text(source)
    Path("s.yaml").write_text(WITHOUT_HOW)
    line = refused("run", "s.yaml", f"trial.model={{name: '{name}', how: fine}}")
    assert line == "s.yaml: trial.model: " + said.replace("{}", str(tmp_path))


@pytest.mark.parametrize(("source", "said"), [
    ("return 5", "trial.task.name: m.py:data must return trials.Data, got int"),
    ("open('data.csv')", "trial.task: m.py:data failed: FileNotFoundError: [Errno 2] No such file or directory: "
                         "'data.csv' ({}/m.py:2); looked for in {}: Path(__file__).parent is the folder of the task"),
])
def test_tasks_that_cannot_be_used(refused: Callable[..., str], tmp_path: Path, source: str, said: str) -> None:
    Path("m.py").write_text(f"def data():\n    {source}\n")
    Path("s.yaml").write_text(WITHOUT_HOW)
    line = refused("run", "s.yaml", "trial.task=m.py:data", "trial.model=mlp")
    assert line == "s.yaml: " + said.replace("{}", str(tmp_path))


# A disk that fills up on the way

@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "size=1m") as path:
        yield path


def test_a_disk_that_fills_up_keeps_what_was_committed(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("""
study: filling
trial:
  task: digits
  model: {name: mlp, width: 64, depth: 1}
  optimizer: {name: sgd, lr: 0.1}
  budget: {steps: 100}
space:
  seed: {replicates: 300}
measure: {eigenvalues: log}
pack: 4
""")
    done = run(tmp_path, "run", "s.yaml", f"results={disk / 'r'}", status=2)
    assert "the disk is full" in done.stderr and str(disk) in done.stderr
    assert not [path for path in disk.rglob("*") if path.name.endswith(".tmp") or path.name == ".lease"]
    whole = pd.read_parquet(disk / "r" / "trials")
    assert 0 < len(whole) < 300
    status = run(tmp_path, "status", "s.yaml", f"results={disk / 'r'}").stdout
    assert f"to run     {300 - len(whole)} of 300\n" in status
