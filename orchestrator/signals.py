"""The signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_came = threading.Event()


def came() -> bool:
    """Whether a signal has come in this process; if none has, a KeyboardInterrupt is one that some code has raised."""
    return _came.is_set()


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handler of the signals that end a command at once."""
    _came.set()
    raise KeyboardInterrupt


class Signals:
    """In a ``with`` block, SIGINT, SIGTERM and SIGHUP (of a terminal that is closed) are kept in ``caught``; a second
    one is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self.listen()
        return self

    def listen(self) -> None:
        """Take the signals, once more after Ray has come up: it puts a handler of its own before ours."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                    before = signal.signal(number, self._on_signal)
                    self._before.setdefault(number, before)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        _came.set()
        signal.alarm(0)  # of Ray's handler, which would abort us three seconds after a SIGTERM
        if self.caught is not None:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number)
