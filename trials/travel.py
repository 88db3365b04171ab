"""What of a user's code travels to another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trials import usercode
from trials.errors import UserError

MOST_FILES, MOST_BYTES = 500, 8 << 20


def files(names: list[str], place: str) -> dict[str, bytes]:
    """What must travel for the user-code ``names`` to run elsewhere, by its path there, relative to our packages: each
    file, and the ``.py`` files and packages beside it, which it may import.

    Modules that are installed are left out: so they must be there. Raises UserError at ``place`` where there is
    too much beside a file.
    """
    found: dict[str, bytes] = {}
    for name in sorted(set(filter(usercode.is_usercode, names))):
        source = name.rpartition(":")[0]
        if source.endswith(".py"):
            path, there = usercode.find(source, place), usercode.shipped(source)
        else:
            home = usercode.home(source, place)
            if home is None:
                continue
            path = home.parent if home.name == "__init__.py" else home
            there = usercode.SHIPPED / path.name
        for file in _beside(path):
            within = there.parent / file.relative_to(path.parent)
            found[within.relative_to(usercode.SHIPPED.parent).as_posix()] = file.read_bytes()
        if len(found) > MOST_FILES or sum(map(len, found.values())) > MOST_BYTES:
            raise UserError(f"{place}: too much code beside {path} to send it to a cluster ({MOST_FILES} files or "
                            f"{MOST_BYTES >> 20} MiB at most); put it into a folder with only what it imports")
    return found


def stays(names: list[str], place: str) -> list[str]:
    """What lies beside the user's files and does not travel: data, perhaps. Notes and hidden files are left out."""
    found: dict[str, None] = {}
    for source in sorted({name.rpartition(":")[0] for name in names if usercode.is_usercode(name)}):
        for entry in sorted(usercode.find(source, place).parent.iterdir()) if source.endswith(".py") else ():
            notes = entry.suffix in (".py", ".yaml", ".yml", ".md") or entry.name[0] in "._"
            if not notes and entry.name != "results" and not (entry / "__init__.py").exists():
                found[f"{entry.name}/" if entry.is_dir() else entry.name] = None
    return list(found)


def _beside(path: Path) -> Iterator[Path]:
    """Code in the folder of ``path``: files, and all files of packages."""
    for entry in sorted(path.parent.iterdir()):
        if entry.suffix == ".py" and entry.is_file():
            yield entry
        elif (entry / "__init__.py").is_file():
            yield from sorted(file for file in entry.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
