"""The one exception for bad input: a single line that names the place and the fix."""

from __future__ import annotations

import difflib
import os
import re
import stat
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

_LIBRARIES = ("<", *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")),
              *(str(Path(__file__).parents[1] / name) + os.sep for name in ("trials", "search_spaces", "orchestrator")))

# A terminal would obey an escape sequence in a question, an axis value or a reason; tabs and ends of lines may stay.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# What a URI names before the host: a user and password, or the keys of an object store.
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@?]+@")


class UserError(Exception):
    """Something the user wrote or has is wrong. The message is one line: where, what was expected, how to mend it.

    The command line prints it and exits with status 2; nothing has been written by then.
    """


def describe(error: BaseException) -> str:
    """What a user's code has raised, on one line: kind, message, and the last line of theirs that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)] or frames[-1:]
    place = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs and theirs[-1].filename[0] != "<" else ""
    try:
        said = str(error)
    except Exception as other:
        said = f"(its message cannot be had: {type(other).__name__})"
    line = " ".join(f"{type(error).__name__}: {said}".split()).encode(errors="backslashreplace").decode()
    return without_secrets(line)[:500] + place


def without_secrets(text: str) -> str:
    """The text with the credentials of its URIs left out: for whatever is printed or written."""
    return _CREDENTIALS.sub("***@", text)


def no_column(place: str, name: object, columns: Iterable[object]) -> UserError:
    """That a table has no column of this name, and which is nearest to it."""
    return UserError(f"{place}: no column called {name!r}; {did_you_mean(name, map(str, columns))}")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest known name, else the list of what there is."""
    names = sorted(known)
    if near := nearest(str(name), names, 1, 0.5):
        return f"did you mean '{near[0]}'?"
    return f"there is: {', '.join(names)}" if names else "there is none"


def nearest(name: str, known: Iterable[str], most: int, cutoff: float = 0.0) -> list[str]:
    """The names that ``name`` may stand for: those of which it is the last part (``bn`` of ``model_bn``), then those
    whose parts begin with its letters (``wd`` for ``weight_decay``), then those most alike, at least by ``cutoff``."""
    names = list(known)
    ends = [each for each in names if name and each.endswith((f".{name}", f"_{name}"))]
    initials = [each for each in names if "".join(part[:1] for part in re.split(r"[._]", each)) == name.lower()]
    return [*dict.fromkeys([*ends, *initials, *difflib.get_close_matches(name, names, most, cutoff)])][:most]


def special_file(path: str | Path) -> str:
    """What is there that is neither file nor folder, such as ``a named pipe``; "" for these, and where nothing is."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
             (stat.S_ISBLK, "a device"))
    return next((name for test, name in kinds if test(mode)), "")
