"""Whether code of the user's own may run: whoever only looks at results, which may have come from anyone, runs none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

TRUST = "--trust runs it"
_forbidding = 0  # how many that forbid it are under way, in the whole process


@contextlib.contextmanager
def untouched(forbidden: bool = True) -> Iterator[None]:
    """Nothing of the user's own code is imported or run meanwhile; with ``forbidden`` False it is as ever."""
    global _forbidding
    _forbidding += forbidden
    try:
        yield
    finally:
        _forbidding -= forbidden


def may_run() -> bool:
    """Whether the user's own code may be imported and run just now."""
    return not _forbidding
