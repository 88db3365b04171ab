"""What several test modules share beside fixtures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.folder import Folder
from trials.checkpoint import Checkpoint
from trials.spec import TrialSpec

COMMAND = [sys.executable, "-m", "orchestrator.cli"]

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Tables = Callable[[Path], "dict[str, pd.DataFrame]"]


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A disk of its own at ``path``, with ``options`` such as size=64m; skips the test where it cannot be mounted."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting takes root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def in_memory(name: str) -> Folder:
    """A folder that is no local one: nothing in it is created exclusively or replaced at once."""
    return Folder.open(f"/{name}", pafs.PyFileSystem(pafs.FSSpecHandler(MemoryFileSystem())))


class Memory:
    """Checkpoints in memory, as bytes; ``at`` says how often ``due`` is asked before it says yes."""

    def __init__(self, at: int) -> None:
        self.asked, self.at = 0, at
        self.bytes: dict[str, bytes] = {}

    def due(self) -> bool:
        self.asked += 1
        return self.asked == self.at

    def go_on(self) -> None:
        pass

    def save(self, spec: TrialSpec, checkpoint: Checkpoint) -> None:
        self.bytes[spec.trial_id] = checkpoint.to_bytes()

    def load(self, spec: TrialSpec) -> Checkpoint | None:
        data = self.bytes.get(spec.trial_id)
        return None if data is None else Checkpoint.from_bytes(data)

    def drop(self, spec: TrialSpec) -> None:
        self.bytes.pop(spec.trial_id, None)
