"""A run that is told to stop: by a signal, and how its workers hear of it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from types import FrameType
from typing import Any

from ray.experimental import internal_kv

POLL_SECONDS = 1.0  # a worker looks this often whether it is to stop


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
