"""What several test modules share beside fixtures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

COMMAND = [sys.executable, "-m", "orchestrator.cli"]

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Tables = Callable[[Path], "dict[str, pd.DataFrame]"]
