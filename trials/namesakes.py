"""Namesakes: modules of one name beside two of a user's files, of which Python would give the first to both.

Within a study they are refused. Those of an earlier study in the same process, as in a notebook, make room.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from trials.errors import UserError
from trials.sources import root

_now: dict[str, Path] = {}  # modules beside the files of the study at hand, by name
_earlier: dict[str, Path] = {}
_claimed: set[Path] = set()  # by whom, since the study began


def begin() -> None:
    """A study begins: what was imported for those before it may go."""
    _earlier.update(_now)
    _now.clear()
    _claimed.clear()


def claim(who: Path, files: Iterable[Path], place: str) -> None:
    """A user's file is about to be imported, and with it, or later, ``files`` beside it. Raises UserError at
    ``place``."""
    if who in _claimed:
        return
    for file in files:
        if file == who:
            continue
        module = file.relative_to(root(who)).with_suffix("")
        name = ".".join(module.parts[:-1] if module.name == "__init__" else module.parts)
        other = _now.setdefault(name, file)
        if other != file:
            raise UserError(f"{place}: {file} and {other} are both imported as {name!r}, and Python would take one for "
                            "both; give one of them another name")
        if (before := _earlier.pop(name, file)) != file:
            _make_room(name, before)
    _claimed.add(who)


def _make_room(name: str, before: Path) -> None:
    if (module := sys.modules.get(name)) and getattr(module, "__file__", None) == str(before):
        del sys.modules[name]
    folder = str(before.parents[name.count(".") + (before.name == "__init__.py")])
    while folder in sys.path:
        sys.path.remove(folder)
