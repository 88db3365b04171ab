"""``resources.seconds``: an end to what takes too long."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

STUCK_SECONDS = 5.0  # after its limit, a trial that cannot be interrupted takes its worker with it
MOST_SECONDS = 1e8  # that timers are good for: three years


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
