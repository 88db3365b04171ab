"""One driver at a time: a lease on a results folder.

The lease is a small file that its owner renews. Whether an owner still lives is decided, in this order, by its process
where that can be seen from here, by the time it wrote, and, where that time has passed or cannot be true (two machines'
clocks differ, or one was set), by watching whether it renews. So no clock alone lets a second driver in or keeps it out
for good.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.folder import Folder
from trials.errors import UserError

FILE = ".lease"
RENEW = 10.0  # seconds between renewals
EXPIRY = 60.0  # seconds a lease is good for; several renewals may fail on a slow network before it is lost
WATCH = 3 * RENEW  # seconds without a renewal after which an owner that cannot be seen is taken for dead
PAUSE = 0.5  # seconds until a contender who wrote at the same moment is sure to be visible


@dataclass(frozen=True)
class Owner:
    """Who holds a lease. Times are seconds since the epoch on the owner's clock."""

    owner: str
    host: str
    machine: str  # the same only where process ids mean the same processes
    pid: int
    process_start: int | None  # in clock ticks since the machine's start; None where that cannot be known
    started: float
    expires: float

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started).astimezone().isoformat(" ", "seconds")
        return f"host {self.host}, pid {self.pid}, since {since}"

    @property
    def alive(self) -> bool | None:
        """Whether its process runs; None where that cannot be seen from here."""
        if self.machine != _machine():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # a process of another user, who may hide it
            if not os.path.exists(f"/proc/{self.pid}"):
                return None
        if self.process_start is None:  # the number may have gone to another process since
            return None
        return _process_start(self.pid) == self.process_start

    @property
    def current(self) -> bool:
        """Whether it was renewed lately, by this machine's clock."""
        return 0 < self.expires - time.time() <= EXPIRY


def holder(folder: Folder) -> str | None:
    """The driver at work in a folder, in words; None where there is none."""
    owner = _parse(_read(folder))
    if owner is None or owner.alive is False or (owner.alive is None and not owner.current):
        return None
    return str(owner)


class Lease:
    """Holds the folder's lease from entry to exit of a ``with`` block. Raises UserError if another driver has it."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._id = uuid.uuid4().hex
        self._started = time.time()
        self._lost: str | None = None
        self._entered, self._seen = math.inf, -math.inf  # when it became ours, and was known to be
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        created = self.folder.create_exclusive(FILE, self._content())
        if not created:
            self._await_the_end()
            self.folder.write(FILE, self._content())
        if not (created and self.folder.local):  # others may have written too: the last one has it
            time.sleep(PAUSE)
            owner = _parse(_read(self.folder))
            if owner is None or owner.owner != self._id:
                raise self._refusal(owner)
        self._entered = _clock()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(RENEW)
        try:
            owner = _parse(_read(self.folder))
            if owner is not None and owner.owner == self._id:
                self.folder.delete(FILE)
        except UserError:
            pass  # the storage is gone: the lease expires, and what happened in the block matters more

    def check(self, again: bool = False) -> None:
        """Raise UserError unless the lease is still ours. To be called before every write.

        Where a look is a request to a server, one counts for RENEW seconds unless it is to be made ``again``: nobody
        takes a lease over that was renewed so lately. Not so at first, when a contender may have been held up.
        """
        with self._lock:
            now = _clock()
            fresh = not (again or self.folder.local) and now - self._entered > RENEW and 0 <= now - self._seen < RENEW
            if self._lost is None and not fresh:
                owner = _parse(_read(self.folder))
                if owner is None and not self.folder.create_exclusive(FILE, self._content()):  # someone removed it
                    owner = _parse(_read(self.folder))
                if owner is not None and owner.owner != self._id:
                    self._lost = f"another driver ({owner}) has taken over"
                self._seen = _clock()
            if self._lost is not None:
                raise UserError(f"{self.folder.shown}: {self._lost}; this one stops, and what it committed is safe")

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(RENEW):
            try:
                self.check(again=True)
                self.folder.write(FILE, self._content())
                renewed = time.monotonic()
            except (UserError, FileNotFoundError):
                if self._lost is None and time.monotonic() - renewed > EXPIRY:
                    self._lost = f"its lease could not be renewed for {EXPIRY:.0f} s, another driver may be at work"
            if self._lost is not None:
                return

    def _await_the_end(self) -> None:
        """Return once the lease there is dead; raise UserError if its owner lives."""
        content = _read(self.folder)
        owner = _parse(content)
        if owner is None:  # half written, or garbage
            time.sleep(PAUSE)
            content = _read(self.folder)
            owner = _parse(content)
        if owner is None or owner.alive is False:
            return
        if owner.alive or owner.current:
            raise self._refusal(owner)
        deadline = time.monotonic() + WATCH
        while time.monotonic() < deadline:
            time.sleep(min(1.0, WATCH / 10))
            if _read(self.folder) != content:
                raise self._refusal(_parse(_read(self.folder)))

    def _refusal(self, owner: Owner | None) -> UserError:
        who = f" ({owner})" if owner else ""
        return UserError(f"{self.folder.shown}: another driver{who} runs this study; wait for it, or stop it")

    def _content(self) -> bytes:
        pid = os.getpid()
        owner = Owner(self._id, socket.gethostname(), _machine(), pid, _process_start(pid), self._started,
                      time.time() + EXPIRY)
        return json.dumps(asdict(owner)).encode()


def _clock() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _read(folder: Folder) -> bytes | None:
    try:
        return folder.read(FILE)
    except FileNotFoundError:
        return None


def _parse(content: bytes | None) -> Owner | None:
    """The owner of a lease; None for one that is not there or makes no sense."""
    try:
        owner = Owner(**json.loads(content or b""))
        str(owner), float(owner.expires)
        if not 0 < owner.pid < 2**31:
            return None
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return owner


def _machine() -> str:
    """This start of this machine, and its space of process ids: containers may share a host's name, but not those."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode():x}"


def _process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine's start; None if it has ended or cannot be known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text[text.rindex(")") + 2:].split()  # the name before it may hold anything
    return None if state in "ZX" else int(fields[18])
