"""Real heads of real clusters, with token authentication, for the tests of a module."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import processes
import pytest

import cluster


@dataclass(frozen=True)
class Head:
    """A running head; ``root`` holds its token and all its files. ``client`` is its address for clients, ``jobs`` the
    URL of its jobs API, where it has a dashboard."""

    process: subprocess.Popen[bytes]
    root: Path
    token: str
    address: str
    client: str
    jobs: str | None

    def let_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the head's token around us."""
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(self.root / "token"))
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)  # keeps Ray quieter than it is for a user


@contextmanager
def started(dashboard: bool = False) -> Iterator[Head]:
    """A head with two cores, and on leaving nothing of it."""
    root = Path(tempfile.mkdtemp(prefix="ps-", dir="/tmp"))  # short: the path of a socket has 107 bytes at most
    token = secrets.token_hex(32)
    (root / "token").write_text(token)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(root / "token"),
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(root),
                   "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))}
    port, client = closed_port(), closed_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0", "--num-cpus=2",
               "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={root / 'ray'}",
               f"--object-store-memory={cluster.OBJECT_STORE_BYTES}", f"--include-dashboard={str(dashboard).lower()}",
               f"--dashboard-port={port}", "--dashboard-agent-listen-port=0", f"--ray-client-server-port={client}"]
    with (root / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True)
    try:
        address = _address(process, root / "head.log")
        yield Head(process, root, token, address, f"ray://127.0.0.1:{client}",
                   f"http://127.0.0.1:{port}" if dashboard else None)
    finally:
        for one in processes.below(process.pid):  # workers have process groups of their own
            one.kill()
        process.kill()
        process.wait()
        shutil.rmtree(root, ignore_errors=True)


def closed_port() -> int:
    """Of this machine: nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        text = log.read_text()
        if "Ray runtime started" in text and (found := re.search(r"--address='(\S+)'", text)):
            return found[1]
        time.sleep(0.1)
    pytest.fail(f"the head did not come up:\n{log.read_text()}")
