"""What ends training before its end: a run that is told to stop, a time limit, a cluster that goes away."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar

import ray
from ray.experimental import internal_kv

T = TypeVar("T")

GONE = "the Ray cluster went away; what is committed stays, and the same command continues once it is up again"

POLL_SECONDS = 1.0  # a worker looks this often whether it is to stop
STUCK_SECONDS = 5.0  # after its limit, a trial that cannot be interrupted takes its worker with it
MOST_SECONDS = 1e8  # that timers are good for: three years
LOOK_SECONDS = 2.0  # a cluster that is there answers within these
MISSES = 7  # looks in vain, in 28 s, are a cluster that is gone; after 60 s Ray's C++ side ends this process
LEAVE_SECONDS = 10.0  # whoever does not leave a cluster that is gone within these is in a call that will not return


def say(run: str) -> None:
    """Tell all workers of a run to stop.

    Through Ray's own key-value store, which each of them can see: an actor does nothing else while it trains, so that
    it cannot be called, and a file would need a shared disk. The key, of some 50 bytes, stays there.
    """
    with contextlib.suppress(Exception):  # a cluster that is gone has no workers to tell
        internal_kv._internal_kv_put(_key(run), b"stop")


class Asked:
    """Whether a run was told to stop, as a worker finds out: at once, then each second."""

    def __init__(self, run: str) -> None:
        self._run, self._next, self._yes = run, 0.0, False

    def __call__(self) -> bool:
        if not self._yes and time.monotonic() >= self._next:
            self._next = time.monotonic() + POLL_SECONDS
            with contextlib.suppress(Exception):  # no answer is none
                self._yes = bool(internal_kv._internal_kv_exists(_key(self._run)))
        return self._yes


def _key(run: str) -> str:
    return f"phasesweep-stop-{run}"


class Signals:
    """In a ``with`` block, SIGINT and SIGTERM are kept in ``caught``; a second one is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number)


class TimeUp(BaseException):
    """A trial took too long. No Exception, so that what is ready for anything a user's code raises lets it pass."""


def too_long(seconds: float) -> str:
    """Why a trial failed that took longer than this."""
    return f"took longer than resources.seconds: {seconds:g} s"


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUp in the block once it has taken ``seconds`` (0: no limit). To be used in the main thread.

    What is interrupted is Python, a sleep included. Code in C that does not return ends the process a few seconds
    later, by a thread that does not need the interpreter's lock.
    """
    if not seconds:
        yield
        return
    seconds, inside = min(seconds, MOST_SECONDS), True

    def up(number: int, frame: FrameType | None) -> None:
        if inside:
            raise TimeUp

    before = signal.signal(signal.SIGALRM, up)
    try:
        faulthandler.dump_traceback_later(seconds + STUCK_SECONDS, exit=True, file=2)
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second, for code that catches everything
        try:
            yield
        finally:
            inside = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def within(seconds: float, items: Iterable[T]) -> Iterator[T]:
    """The items, as long as making them has taken less than ``seconds`` (0: no limit), what is done with them between
    not counted. Raises TimeUp."""
    iterator, left = iter(items), seconds
    while True:
        began = time.monotonic()
        with time_limit(left):
            try:
                item = next(iterator)
            except StopIteration:
                return
        if seconds:
            left = max(1e-3, left - (time.monotonic() - began))
        yield item


class Presence:
    """Which nodes of the cluster are ``alive``, and whether it is ``lost`` to this process; in a ``with`` block it
    looks every few seconds, in threads of its own: a call to a cluster that is gone does not return. If it is lost and
    the block is not left, the process is ended: its main thread is in such a call, and cannot be woken.

    Our own node is looked at more closely. The cluster takes ten seconds to see that a node is dead, and then Ray's C++
    side ends the processes there, ours too.
    """

    def __init__(self) -> None:
        self._own = ray.get_runtime_context().get_node_id()
        self._reached = False  # whether our node's port ever was: that of a head behind ray:// may be closed to us
        self.alive = frozenset({self._own})
        self._answers = self._missed = 0  # looks in vain are counted, not timed: a process may be paused, and go on
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    @property
    def lost(self) -> bool:
        """Whether this process' node is dead, or nobody has answered for long."""
        return self._own not in self.alive or self._missed >= MISSES

    def look(self) -> bool:
        """Look now; returns whether there was an answer."""
        before = self._answers
        thread = threading.Thread(target=self._ask, daemon=True)
        thread.start()
        thread.join(LOOK_SECONDS)
        return self._answers > before

    def _ask(self) -> None:
        with contextlib.suppress(Exception):
            nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
            if self._own in nodes and not self._listens(nodes[self._own]):
                del nodes[self._own]
            self.alive = frozenset(nodes)
            self._answers += 1

    def _listens(self, node: Mapping[str, Any]) -> bool:
        """Whether somebody listens at a node's port, where that could be told before."""
        try:
            socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), LOOK_SECONDS).close()
            self._reached = True
        except OSError:
            return not self._reached
        return True

    def _keep(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._missed = 0 if self.look() else self._missed + 1
            if self.lost and not self._ended.wait(LEAVE_SECONDS):
                _give_up()


def _give_up() -> None:
    """The end that a ClusterError comes to."""
    print(f"phasesweep: {GONE}", file=sys.stderr, flush=True)
    os._exit(2)
