"""``os._exit`` in a user's code: the end of a trial, not of the process that runs it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def no_exit() -> Iterator[None]:
    """In the main thread of this process, ``os._exit`` raises SystemExit, so that it is said who called it. Processes
    that are forked in the block, and other threads, end by it as ever."""
    real, process = os._exit, os.getpid()

    def end(status: int = 0) -> NoReturn:
        if os.getpid() != process or threading.current_thread() is not threading.main_thread():
            real(status)
        raise SystemExit(f"os._exit({status}) was called")

    os._exit = end
    try:
        yield
    finally:
        os._exit = real
