"""The processes below one, as Linux tells them, and whether they are still there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process; a number that was given to another one since is not the same."""

    pid: int
    parent: int
    started: int
    command: str

    @property
    def alive(self) -> bool:
        now = _look(self.pid)
        return now is not None and now.started == self.started

    def kill(self) -> None:
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)


def below(pid: int) -> list[Process]:
    """Children of ``pid``, their children, and so on."""
    everyone = [process for name in os.listdir("/proc") if name.isdigit() and (process := _look(int(name)))]
    found, parents = [], {pid}
    while children := [process for process in everyone if process.parent in parents]:
        found += children
        parents = {process.pid for process in children}
    return found


def left_after(seconds: float, processes: list[Process]) -> list[str]:
    """What is still running when all have ended, or the time is over: commands, so that a failure shows them."""
    until = time.monotonic() + seconds
    while (left := [process.command for process in processes if process.alive]) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def listens(pid: int) -> list[str]:
    """The addresses at which a process listens to TCP."""
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(path))
    found = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:  # it has ended
            continue
        for line in lines:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                host = local.partition(":")[0]
                words = [bytes.fromhex(host[at:at + 8])[::-1] for at in range(0, len(host), 8)]
                address = ipaddress.ip_address(b"".join(words))
                found.append(str(getattr(address, "ipv4_mapped", None) or address))
    return found


def _look(pid: int) -> Process | None:
    try:
        state, parent, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return None if state == "Z" else Process(pid, int(parent), int(rest[17]), words.strip())
