"""No secret of the environment, and no credentials of a URI, reach a disk, a node or a screen unasked.

One run holds them all, and beside them what else it may find in its environment: a driver nobody reads, a locale
without letters, the address of a cluster that is not there, user code that registers a knob, exits, crashes and closes
files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import driving
import pandas as pd
import processes
import pytest
from strategies import everything

from orchestrator import cli
from orchestrator.losses import LOST
from orchestrator.receipt import Receipt
from search_spaces import load_study

CANARY = "c4n4ry"
NAMES = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "WANDB_API_KEY",
         "HF_TOKEN", "AZURE_STORAGE_KEY", "DATABASE_PASSWORD", "MY_SECRET", "RAY_AUTH_TOKEN"]
CODE = '''
import ctypes, os, signal, subprocess, sys, time, threading
from dataclasses import dataclass
from pathlib import Path
from torch import nn
from trials.fields import real
from trials.knobs.base import KNOBS, Knob

HERE = Path(__file__).parent
IN_WORKER = "default_worker" in sys.argv[0]

@KNOBS.register("mine")
@dataclass(frozen=True)
class Mine(Knob):
    """Scales the input."""
    p: float = real(0.5, low=0, help="factor")
    def input(self, x, moment):
        return x * self.p

class Net(nn.Module):
    def __init__(self, outputs, how):
        super().__init__()
        self.layer, self.how = nn.Linear(64, outputs), how
    def forward(self, x):
        if IN_WORKER and self.training:
            if self.how == "waits":
                assert os.environ["MY_SECRET"]  # workers on this machine have our environment
                (HERE / "waiting").touch()
                while not (HERE / "go").exists():
                    time.sleep(0.05)
            if self.how == "thread":
                threading.Thread(target=time.sleep, args=(3600,)).start()
            if self.how == "starts":
                subprocess.Popen(["sleep", "3611"])
            if self.how == "closes":
                os.closerange(0, 3)
            if self.how == "exits":
                os._exit(3)
            if self.how == "crashes":
                ctypes.string_at(0)
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "ended":
                os.kill(os.getpid(), signal.SIGTERM)
        return self.layer(x.flatten(1))

def net(input_shape, outputs, how="waits"):
    return Net(outputs, how)
'''
STUDY = """
study: secrets
trial:
  task: digits
  model: {name: "m.py:net"}
  optimizer: {name: sgd, lr: 0.1}
  budget: {steps: 3}
  knobs: {mine: {p: 0.25}}
space:
  how: [waits, thread, starts, closes, exits, crashes, killed, ended]
measure: {training: ends, weights: none, eigenvalues: none, changes: none}
device: cpu
retries: 0
pack: off
"""


PLAIN = STUDY.replace("m.py:net", "mlp").replace("  knobs: {mine: {p: 0.25}}\n", "").replace("how:", "lr:").replace(
    "[waits, thread, starts, closes, exits, crashes, killed, ended]", "[0.1]")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    (tmp_path / "s.yaml").write_text(PLAIN)
    return tmp_path


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # of a process that has ended
        return b""


def holds(root: Path) -> list[str]:
    """Files below it that hold the canary."""
    return [name for name, content in everything(root).items() if CANARY.encode() in (content or b"")]


def test_a_run_keeps_them_to_itself_and_ends_as_it_should(here: Path, short: Path) -> None:
    results = here / "größe"
    (here / "m.py").write_text(CODE)
    (here / "s.yaml").write_text(STUDY)
    driver = driving.start("run", "s.yaml", f"results={results}", environment={
        "TMPDIR": str(short), "PYTHONUTF8": "0", "LC_ALL": "C", "RAY_ADDRESS": "127.0.0.1:1",
        "HOME": str(here / "m.py" / "home")})
    assert driver.stdout is not None and driver.stderr is not None
    first = driver.stdout.readline()
    driver.stdout.close()  # as head -1 does
    driving.wait((here / "waiting").exists)
    session, = short.glob("phasesweep-*/r/session_latest")
    assert all(folder.stat().st_mode & 0o77 == 0 for folder in short.glob("phasesweep-*"))
    assert (session / "logs").is_dir() and holds(short) == []
    below = processes.below(driver.pid)
    assert not [one.command for one in below if CANARY in one.command]
    assert {host for one in below for host in processes.listens(one.pid)} == {"127.0.0.1"}
    (here / "go").touch()
    assert driver.wait(driving.PATIENCE) == 1 and first == "secrets: 8 of 8 trials to run\n"
    assert driver.stderr.read() == ""
    driver.stderr.close()
    assert processes.left_after(20, below) == [] and list(short.glob("phasesweep-*")) == []
    assert holds(here) == []

    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"3611" in read(path)]
    trials = pd.read_parquet(results / "trials").set_index("model_how")
    assert set(trials["mine_p"]) == {0.25}
    done = trials.loc[["waits", "thread", "starts", "closes"]]
    assert set(done["status"]) == {"completed"} and done["test_loss"].nunique() == 1
    reasons = trials["reason"].dropna().to_dict()
    assert reasons == {
        "exits": f"SystemExit: os._exit(3) was called ({here}/m.py:38)",
        "crashes": f"{LOST} crashed: Segmentation fault ({here}/m.py:40)",
        **dict.fromkeys(["killed", "ended"], f"{LOST} was killed from outside, or ended without a word")}


@pytest.mark.parametrize("to", ["http://127.0.0.1:1", "slurm", "kubernetes", "aws"])
def test_no_job_has_them(to: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = "s3://bucket/x" if to == "kubernetes" else "out"
    assert cli.main(["submit", "s.yaml", "--to", to, "--dry-run", f"results={where}"]) == 0
    out, err = capfd.readouterr()
    assert len(out) > 100 and CANARY not in out + err
    status = cli.main(["submit", "s.yaml", "--to", to, "--dry-run", f"results=s3://key:{CANARY}@bucket/x"])
    out, err = capfd.readouterr()
    assert status == 2 and CANARY not in out + err
    assert "it may hold no key; leave it out" in err


@pytest.mark.parametrize("words", [
    ["status", "s.yaml"], ["plan", "s.yaml"], ["run", "s.yaml"], ["report", "s.yaml"],
    ["query", "s.yaml", "SELECT 1"], ["fetch", "s.yaml"]])
@pytest.mark.parametrize("uri", ["nosuch://key:{}@bucket/x", "s3://{}@/"])
def test_no_verb_says_the_credentials_of_a_uri(words: list[str], uri: str, here: Path,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    status = cli.main([*words, f"results={uri.format(CANARY)}"])
    out, err = capfd.readouterr()
    assert status == 2 and CANARY not in out + err and "***@" in out + err


def test_they_are_in_nothing_that_describes_a_study(here: Path) -> None:
    from orchestrator.provenance import study_file
    from orchestrator.shipping import bundle

    study = load_study("s.yaml")
    assert CANARY.encode() not in study_file(study)
    assert not [name for name, content in bundle(study).files.items() if CANARY.encode() in content]
    assert CANARY not in repr(Receipt("slurm", [], "1", "out", True))


def test_user_code_that_exits_before_the_sweep_is_refused_and_said(here: Path) -> None:
    (here / "s.yaml").write_text(PLAIN.replace("mlp", "m.py:net"))
    for code in ("import os\ndef net(shape, outputs):\n    os._exit(0)\n", "import os\nos._exit(0)\n"):
        (here / "m.py").write_text(code)
        done = subprocess.run([sys.executable, "-m", "orchestrator.cli", "run", "s.yaml", "results=r"],
                              capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.fspath(
                                  Path(__file__).parents[2])})
        assert done.returncode == 2 and not (here / "r").exists()
        assert done.stderr.count("\n") == 1 and "SystemExit: os._exit(0) was called" in done.stderr
