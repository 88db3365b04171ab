"""Standard streams of the command, which may be closed, full, or a pipe or terminal whose other end has gone.

A verb that only prints ends there. One that does work goes on, and what it would have printed is dropped.
"""

from __future__ import annotations

import fcntl
import io
import os
import resource
import sys
from typing import Any

_copies: dict[int, int] = {}
ABOVE = 64  # numbers of our own copies: code that closes its standard output does not close ours


class Output(io.RawIOBase):
    """Writes to a copy of a file descriptor until that fails; then ``error`` says why, and all else is dropped. The
    error is raised once where ``drops`` is not set."""

    def __init__(self, number: int, drops: bool) -> None:
        self._number, self._copy = number, _copy(number)
        self.drops = drops
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """Of the stream itself."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._copy)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write all of it, or drop it."""
        left = memoryview(data)
        while left and self.error is None:
            try:
                left = left[os.write(self._copy, left):]
            except BlockingIOError:  # the other end does not wait for us, as it should
                os.set_blocking(self._copy, True)
            except OSError as error:
                self.error = error
                if not self.drops:
                    raise
        return len(data)


def remember() -> None:
    """Have the three opened again by ``keep_open`` as they are now."""
    _copies.update({number: _copy(number) for number in range(3)})


def _copy(number: int) -> int:
    """Another descriptor of the same file, away from the first ones, which others count on; where only so many may be
    open that there is none there, the next."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3 if 0 <= soft < ABOVE + 8 else ABOVE)


def keep_open() -> None:
    """Open each of the three that is closed: else the next file to be opened takes its number, and whatever a library
    prints goes into it. It is the null device then, where it is not remembered."""
    for number in range(3):
        try:
            os.fstat(number)
            continue
        except OSError:
            pass
        if number in _copies:
            os.dup2(_copies[number], number)
        else:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one


def take_over(drops: bool) -> Output:
    """Make ``sys.stdout`` and ``sys.stderr`` such outputs; returns the first. Errors on the second are always dropped:
    there is nobody to tell."""
    keep_open()
    out = Output(1, drops)
    sys.stdout = _text(out, sys.stdout, "replace", out.isatty())  # a letter the terminal lacks is no reason to stop
    sys.stderr = _text(Output(2, drops=True), sys.stderr, "backslashreplace", True)
    return out


def _text(raw: Any, before: Any, errors: str, lines: bool) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"  # there is none where it was closed
    # The text's own buffer is enough, and forgets what it hands on: one between would write it again where a signal
    # comes just after it was written.
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=lines)
