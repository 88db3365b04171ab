"""A user's own model or task, named ``module:function`` or ``path/to/file.py:function``.

The folder of a user's file is appended to ``sys.path``, never put first: a folder called ``analysis/`` beside it must
not hide ours. Where our code has travelled to another machine, the user's lies beside it in ``SHIPPED``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os.path
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from trials.errors import UserError, describe, did_you_mean

SHIPPED = Path(__file__).parents[1] / "_usercode"
MOST_FILES, MOST_BYTES = 500, 8 << 20  # that travel

_folders: list[Path] = []


def is_usercode(name: str) -> bool:
    """Whether a component's name means the user's own code."""
    return ":" in name


def search_in(folder: str | Path) -> None:
    """Look for relative ``file.py`` names (and modules) in ``folder`` too, after the working directory and before the
    folders named earlier."""
    path = Path(folder).resolve()
    if path in _folders:
        _folders.remove(path)
    _folders.insert(0, path)


def load(name: str, place: str) -> Callable[..., Any]:
    """The function called ``name``. UserError at ``place`` where file, module or function is missing or broken."""
    source, _, function = name.rpartition(":")
    module = _load_file(_find(source, place), place) if source.endswith(".py") else _load_module(source, place)
    found = getattr(module, function, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(f"{place}: {source} has no function {function!r}; {did_you_mean(function, names)}")
    return found  # type: ignore[no-any-return]


def check_params(name: str, params: Mapping[str, Any], leading: int, place: str) -> None:
    """Raise UserError unless the function takes ``leading`` positional arguments and then exactly ``params``."""
    signature = inspect.signature(load(name, place))
    try:
        signature.bind(*[None] * leading, **params)
    except TypeError as error:
        raise UserError(f"{place}: {name}{signature} does not take these parameters: {error}") from None


def fingerprint(names: list[str]) -> str | None:
    """A short hash of the source files behind the user-code ``names``; None if there are none."""
    digest, any_found = hashlib.blake2b(digest_size=8), False
    for name in sorted(set(filter(is_usercode, names))):
        file = inspect.getsourcefile(load(name, name))
        if file is not None:
            digest.update(Path(file).read_bytes())
            any_found = True
    return digest.hexdigest() if any_found else None


def files(names: list[str], place: str) -> dict[str, bytes]:
    """What must travel for the user-code ``names`` to run elsewhere, by its path there, relative to our packages: each
    file, and the ``.py`` files and packages beside it, which it may import.

    Modules that are installed are left out: so they must be there. Raises UserError at ``place`` where there is
    too much beside a file.
    """
    found: dict[str, bytes] = {}
    for name in sorted(set(filter(is_usercode, names))):
        source = name.rpartition(":")[0]
        if source.endswith(".py"):
            path, there = _find(source, place), _shipped(source)
        else:
            top = source.partition(".")[0]
            path = Path(getattr(_load_module(top, place), "__file__", None) or sys.executable)
            path = path.parent if path.name == "__init__.py" else path
            if path.parent not in (Path.cwd(), SHIPPED, *_folders):
                continue
            there = SHIPPED / path.name
        for file in _beside(path):
            within = there.parent / file.relative_to(path.parent)
            found[within.relative_to(SHIPPED.parent).as_posix()] = file.read_bytes()
        if len(found) > MOST_FILES or sum(map(len, found.values())) > MOST_BYTES:
            raise UserError(f"{place}: too much code beside {path} to send it to a cluster ({MOST_FILES} files or "
                            f"{MOST_BYTES >> 20} MiB at most); put it into a folder with only what it imports")
    return found


def _beside(path: Path) -> Iterator[Path]:
    """Code in the folder of ``path``: files, and all files of packages."""
    for entry in sorted(path.parent.iterdir()):
        if entry.suffix == ".py" and entry.is_file():
            yield entry
        elif (entry / "__init__.py").is_file():
            yield from sorted(file for file in entry.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _shipped(source: str) -> Path:
    """Where a user's file called ``source`` lies after it has travelled; always below SHIPPED."""
    path = PurePath(source)
    return SHIPPED.joinpath(*("_up" if part == ".." else part for part in path.relative_to(path.anchor).parts))


def _find(source: str, place: str) -> Path:
    if os.path.isfile(shipped := _shipped(source)):
        return shipped
    folders = dict.fromkeys((Path.cwd(), *_folders))
    for folder in folders:
        path = folder / source
        if os.path.isfile(path):  # which, unlike the method of Path, says no to a name that is too long
            return path.resolve()
    raise UserError(f"{place}: no file {source!r} in {', '.join(map(str, folders))}")


def _load_file(path: Path, place: str) -> ModuleType:
    alias = f"_usercode_{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    if alias in sys.modules:
        return sys.modules[alias]
    _append(path.parent)
    spec = importlib.util.spec_from_file_location(alias, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[alias]
        raise UserError(f"{place}: {path} cannot be imported: {describe(error)}") from error
    return module


def _load_module(source: str, place: str) -> ModuleType:
    for folder in (SHIPPED, Path.cwd(), *_folders):
        _append(folder)
    if source.partition(".")[0] in sys.stdlib_module_names:  # os:system is no model, and a task would be called at once
        raise UserError(f"{place}: {source!r} is a module of Python's own, not your code; if you have a file of that "
                        f"name, write {source.replace('.', '/')}.py:function")
    try:
        return importlib.import_module(source)
    except (Exception, SystemExit) as error:
        raise UserError(f"{place}: module {source!r} cannot be imported: {describe(error)}") from error


def _append(folder: Path) -> None:
    # Ours before the user's: an editable install finds our packages only after everything on the path.
    for entry in (str(Path(__file__).parents[1]), str(folder)):
        if entry not in sys.path:
            sys.path.append(entry)
