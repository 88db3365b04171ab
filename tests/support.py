"""What several test modules share beside fixtures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

COMMAND = [sys.executable, "-m", "orchestrator.cli"]

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Tables = Callable[[Path], "dict[str, pd.DataFrame]"]


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A disk of its own at ``path``, of ``size`` such as 64m; skips the test where it cannot be mounted."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting takes root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
