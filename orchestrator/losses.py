"""Why a worker was lost: the exception that it raised, the signal that ended it, its last words."""

from __future__ import annotations

import contextlib
import re
import sysconfig
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

MOST_LINES, MOST_CHARACTERS = 3, 300  # of what a worker said last
TAIL_BYTES = 20_000
LOST = "WorkerLost: the worker process"
FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)  # Python's own fault handler, and below it the stack
FRAME = re.compile(r'File "(.+)", line (\d+) in ')
NOISE = re.compile(r"^\s*$|^\[[\d-]+ [\d:,.]+ \w|^\(?\w*pid=|^:(actor|task|job)_\w+:")  # Ray's
LIBRARIES = re.compile(rf"{re.escape(sysconfig.get_path('stdlib'))}|.*/(site|dist)-packages/|<")


def why(error: BaseException | None, oom_kills: int) -> str:
    """The reason of trials whose worker was lost with ``error``; ``oom_kills`` are those counted before."""
    if isinstance(error, RayTaskError):  # it raised something outside of any trial
        cause = getattr(error, "cause", error)
        return _short(f"{type(cause).__name__}: {cause}")
    said = str(error or "")
    if getattr(error, "actor_init_failed", False):  # its last line is the exception
        return _short(f"{LOST} did not start: {_last(said.splitlines(), 1)}")
    if "NODE_OUT_OF_MEMORY" in said or "running low on memory" in said:
        return f"{LOST} was ended by Ray's memory monitor: its node ran out of memory"
    pid = re.search(r"^\s*pid: (\d+)$", said, re.MULTILINE)
    words = _stderr(int(pid[1])) if pid else ""
    if fatal := FATAL.search(words):
        theirs = [frame for frame in FRAME.findall(words[fatal.end():]) if not LIBRARIES.match(frame[0])]
        return _short(f"{LOST} crashed: {fatal[1]}" + (" ({}:{})".format(*theirs[0]) if theirs else ""))
    if kills() > oom_kills:
        return f"{LOST} was killed by the kernel: out of memory"
    last = _last(words.splitlines(), MOST_LINES)
    return _short(f"{LOST} was killed from outside, or ended without a word" if not last else
                  f"{LOST} died; it said last: {last}")


def kills() -> int:
    """How many processes the kernel of this machine has killed for want of memory, since its start; 0 where it does not
    say so."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _stderr(pid: int) -> str:
    """The end of what a worker on this node wrote to its standard error."""
    worker: Any = ray._private.worker
    with contextlib.suppress(Exception):
        folder = Path(worker._global_node.get_session_dir_path(), "logs")
        for path in folder.glob(f"worker-*-{pid}.err"):
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL_BYTES))
                return file.read().decode(errors="replace")
    return ""


def _last(lines: list[str], most: int) -> str:
    return " | ".join([line.strip() for line in lines if not NOISE.search(line)][-most:])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}..."
