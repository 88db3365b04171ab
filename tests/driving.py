"""Start a driver, wait for a moment in its life, and see how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import processes
import pyarrow.parquet as pq
from support import COMMAND

T = TypeVar("T")
PATIENCE = 400.0  # seconds for what takes a few on a machine that is not busy
# Trials keep checkpoints so often that a kill may fall into the writing of one.
OFTEN = [sys.executable, "-c", "import sys; from orchestrator import checkpoints, cli; checkpoints.SECONDS = 0.3; "
                               "sys.exit(cli.main(sys.argv[1:]))"]
# A model whose trials last, whatever the machine and whoever is at work on it, while there is a file ``slowly`` beside
# it, and take next to no processor time.
SLOW = """
import pathlib
import time
from torch import nn

SLOWLY = pathlib.Path(__file__).with_name("slowly")

class Slow(nn.Linear):
    def forward(self, x):
        if self.training and SLOWLY.exists():
            time.sleep(0.3)
        return super().forward(x)

def build(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), Slow(64, outputs))
"""


def slow_study(folder: Path, text: str) -> Path:
    """The file of a study whose models, in slow.py beside it, are ``SLOW``."""
    path = folder / "long.yaml"
    path.write_text(text)
    path.with_name("slow.py").write_text(SLOW)
    return path


@contextlib.contextmanager
def slowly(study: Path) -> Iterator[None]:
    """Trials of this study of ``slow_study`` last half a minute and more."""
    path = study.with_name("slowly")
    path.touch()
    try:
        yield
    finally:
        path.unlink()


def start(*words: object, command: Sequence[str] = COMMAND,
          environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """``phasesweep WORDS`` in a process and a session of its own."""
    return subprocess.Popen([*command, *map(str, words)], text=True, stdin=subprocess.DEVNULL, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})})


def ended(driver: subprocess.Popen[str], status: int, seconds: float = PATIENCE) -> tuple[str, str]:
    """Wait for its end, which is to have this exit status and no traceback; what it printed, and its complaints."""
    try:
        out, err = driver.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(driver)
        raise
    assert driver.returncode == status, f"exit {driver.returncode}, expected {status}\n{out}\n{err}"
    assert "Traceback" not in out + err, out + err
    return out, err


def refused(driver: subprocess.Popen[str], seconds: float = PATIENCE) -> str:
    """Wait for its end with status 2; the one line it complains of."""
    _, err = ended(driver, 2, seconds)
    assert err.startswith("phasesweep: ") and err.count("\n") == 1 and err.endswith("\n"), err
    return err


def wait(moment: Callable[[], T], driver: subprocess.Popen[str] | None = None, seconds: float = PATIENCE) -> T:
    """Return what ``moment()`` gives, when it is true; fails where ``driver`` ends before."""
    until = time.monotonic() + seconds
    while not (found := moment()):
        if driver is not None and driver.poll() is not None:
            out, err = driver.communicate()
            raise AssertionError(f"the driver ended too early, with status {driver.returncode}\n{out}\n{err}")
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
    return found


def kill(driver: subprocess.Popen[str]) -> list[processes.Process]:
    """kill -9 the driver alone; the processes below it, which are to end by themselves."""
    below = processes.below(driver.pid)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    return below


def workers(driver: subprocess.Popen[str]) -> list[processes.Process]:
    """Those of Ray's processes below the driver that train just now."""
    return [process for process in processes.below(driver.pid)
            if process.command.startswith("ray::") and ".train" in process.command]


def kept(results: Path) -> dict[str, int]:
    """When the checkpoint of each trial was last written, in ns; also while workers write, whose half written
    files do not count."""
    found = {}
    for path in (results / ".checkpoints").glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError):  # its trial is done just now
            found[path.name] = path.stat().st_mtime_ns
    return found


def committed(results: Path) -> int:
    """How many trials are in the store; also while a driver writes."""
    rows = 0
    for path in (results / "trials").glob("*.parquet"):
        try:
            rows += pq.read_metadata(path).num_rows
        except (OSError, ValueError):  # replaced just now, or damaged
            continue
    return rows

