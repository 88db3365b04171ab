"""How the workers of a run hear that it is to stop."""

from __future__ import annotations

import contextlib
import time

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
