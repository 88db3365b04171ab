"""A lost worker's reason is what happened to it, as far as anybody knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from orchestrator.losses import LOST, MOST_CHARACTERS, kills, why

STACK = '''
[2026-01-01 00:00:00,000 E 77 77] logging.cc:474: *** SIGSEGV received ***
Fatal Python error: Segmentation fault

Stack (most recent call first):
  File "{torch}/nn.py", line 3 in f
  File "/home/me/m.py", line 22 in forward
'''


def died(said: str, start: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg, error._actor_init_failed = said, start
    return error


@pytest.fixture
def stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of worker 77."""
    (tmp_path / "logs").mkdir()
    node = SimpleNamespace(get_session_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    return tmp_path / "logs" / "worker-abc-01000000-77.err"


PID = "The actor died unexpectedly before finishing this task.\n\tpid: 77\nWorker exit type: SYSTEM_ERROR"


def test_it_is_what_it_said_last(stderr: Path) -> None:
    import torch

    stderr.write_text(":job_id:01000000\n:actor_name:x\nfirst\n\nterminate called\n  what():  bad luck\n"
                      "[2026-01-01 00:00:00,000 W 77 99] core_worker.cc:1: noise\n")
    assert why(died(PID), kills()) == f"{LOST} died; it said last: first | terminate called | what(): bad luck"
    stderr.write_text("x" * 5000)
    assert len(why(died(PID), kills())) == MOST_CHARACTERS + 3
    stderr.write_text(STACK.format(torch=Path(torch.__file__).parent))
    assert why(died(PID), kills()) == f"{LOST} crashed: Segmentation fault (/home/me/m.py:22)"


def test_out_of_memory_is_said_where_somebody_says_so_only(stderr: Path) -> None:
    usual = f"{PID}\nSome common causes include: (1) the process was killed by the OOM killer due to high memory usage"
    assert why(died(usual), kills()) == f"{LOST} was killed from outside, or ended without a word"
    assert why(died(usual), -1) == f"{LOST} was killed by the kernel: out of memory"
    for said in ("Worker exit type: NODE_OUT_OF_MEMORY", "killed due to the node running low on memory."):
        assert why(died(said), kills()) == f"{LOST} was ended by Ray's memory monitor: its node ran out of memory"


def test_it_is_the_exception_where_one_was_raised() -> None:
    start = died("The actor died because of an error raised in its creation task, ray::X.__init__()\n  File \"a\"\n"
                 "ModuleNotFoundError: No module named 'theirs'", start=True)
    assert why(start, 0) == f"{LOST} did not start: ModuleNotFoundError: No module named 'theirs'"
    error = RayTaskError("step", "Traceback ...\nKeyError: 'mine'", KeyError("mine"))
    assert why(error, 0) == "KeyError: 'mine'"
    assert why(None, kills()) == f"{LOST} was killed from outside, or ended without a word"
