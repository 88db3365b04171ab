"""Hosts of a network of their own, on this machine: network namespaces that are plugged into one switch.

What runs on one host reaches the others through its cable only, and nothing else in the world: the switch has no way
out. The hosts share this machine's processors, processes and files, except folders that are hidden from them.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cluster

PORT = 6379
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus=1",
       f"--object-store-memory={cluster.OBJECT_STORE_BYTES}", "--min-worker-port=0", "--max-worker-port=0"]
# A head gives a host up after 30 to 45 s of silence. Here it does after about 12.
HEALTH = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
          "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "4"}
# Into a host: its name, the names of all hosts, nobody to ask for others, and what is hidden.
ENTER = """hostname "$NAME"; mount --bind "$HOSTS" /etc/hosts; mount --bind /dev/null /etc/resolv.conf
if [ "$HIDDEN" ]; then mount -t tmpfs none "$HIDDEN"; fi
exec "$@" """
_numbers = itertools.count()


def possible() -> bool:
    """Whether this process may make network namespaces."""
    name = f"ps{os.getpid()}-try"
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    _ip("netns", "del", name)
    return True


@dataclass(frozen=True)
class Host:
    """A host by its name, which is that of its namespace too; ``root`` holds the token and the logs."""

    name: str
    address: str
    switch: str
    root: Path
    hidden: Path | None = None  # an empty folder to this host
    started: list[subprocess.Popen[str]] = field(default_factory=list, repr=False)

    def start(self, *command: str, environment: Mapping[str, str] | None = None,
              output: int | None = None) -> subprocess.Popen[str]:
        """Start a command there, with the cluster's token; without ``output`` it goes to the host's log."""
        around = ["ip", "netns", "exec", self.name, "unshare", "--uts", "--mount", "sh", "-ec", ENTER, "sh"]
        variables = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.root / "token"),
                     "NAME": self.name, "HOSTS": str(self.root / "hosts"), "HIDDEN": str(self.hidden or ""),
                     **(environment or {})}
        with self.log.open("ab") as log:
            self.started.append(subprocess.Popen([*around, *command], env=variables, text=True,
                                                 stdin=subprocess.DEVNULL, stdout=output or log, stderr=output or log,
                                                 start_new_session=True))
        return self.started[-1]

    def head(self) -> None:
        """Start a cluster whose head is here."""
        self._ray("--head", f"--port={PORT}", "--include-dashboard=false")

    def join(self, head: Host) -> None:
        """Add this host to the cluster of ``head``."""
        self._ray(f"--address={head.address}:{PORT}")

    def pids(self, *programs: str) -> list[int]:
        """What runs on this host; only these programs, if any are named."""
        found = []
        for pid in map(int, _ip("netns", "pids", self.name).split()):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if not programs or any(program in command for program in programs):
                found.append(pid)
        return found

    def kill(self, *programs: str) -> None:
        """kill -9 what runs here; only these programs, if any are named. Returns when they are gone."""
        until = time.monotonic() + 30
        while (left := self.pids(*programs)) and time.monotonic() < until:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        assert not left

    def plug(self, into: bool) -> None:
        """Put the cable in, or pull it."""
        _ip("-n", self.switch, "link", "set", self.name, "up" if into else "down")

    def lost(self, other: Host) -> bool:
        """Whether the head that runs here has given the other host up."""
        log = next(self.root.glob(f"{self.name}/session_latest/logs/gcs_server.out")).read_text()
        return any(f"address: {other.address} " in line and "has been marked dead" in line
                   for line in log.splitlines())

    @property
    def log(self) -> Path:
        return self.root / f"{self.name}.log"

    def _ray(self, *how: str) -> None:
        began = len(self.log.read_text()) if self.log.exists() else 0
        process = self.start(*RAY, *how, f"--node-ip-address={self.address}", f"--temp-dir={self.root / self.name}",
                             environment=HEALTH)
        until = time.monotonic() + 120
        while "Ray runtime started" not in self.log.read_text()[began:]:
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"no Ray on {self.name}:\n{self.log.read_text()}")
            time.sleep(0.1)


@dataclass
class Network:
    """A switch. Hosts are added to it, and removed with it."""

    switch: str
    root: Path
    hosts: list[Host] = field(default_factory=list)

    def host(self, hidden: Path | None = None) -> Host:
        """A new host, plugged in. ``hidden`` is a folder that it cannot see into."""
        number = len(self.hosts) + 1
        name = f"{self.switch}-{number}"
        host = Host(name, f"10.77.{os.getpid() % 256}.{number}", self.switch, self.root, hidden)
        _ip("netns", "add", name)
        self.hosts.append(host)
        with (self.root / "hosts").open("a") as names:
            names.write(f"{host.address} {name}\n")
        _ip("-n", self.switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("-n", self.switch, "link", "set", name, "master", "switch", "up")
        for words in ("link set lo up", f"address add {host.address}/24 dev eth0", "link set eth0 up",
                      "route add default dev eth0"):  # Ray looks which address is the way out, and asks nobody
            _ip("-n", name, *words.split())
        return host


@contextmanager
def network() -> Iterator[Network]:
    """An empty network; in the end everything that runs on its hosts is killed and all of it is removed."""
    switch = f"ps{os.getpid()}{chr(97 + next(_numbers) % 26)}"  # with a host's number an interface: 15 letters at most
    root = Path(tempfile.mkdtemp(prefix="net-", dir="/tmp"))  # short: the path of a socket has 107 letters at most
    (root / "token").write_text(secrets.token_hex(32))
    (root / "hosts").write_text("127.0.0.1 localhost\n")
    made = Network(switch, root)
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        yield made
    finally:
        for host in made.hosts:
            host.kill()
            for process in host.started:
                with process:  # waits, and closes its pipes
                    process.kill()
        for name in (*(host.name for host in made.hosts), switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
