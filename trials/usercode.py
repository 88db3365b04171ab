"""A user's own model or task, named ``module:function`` or ``path/to/file.py:function``.

The folder of a user's file is appended to ``sys.path``, never put first: a folder called ``analysis/`` beside it must
not hide ours. Where our code has travelled to another machine, the user's lies beside it in ``SHIPPED``.

Whoever only looks at results runs nothing of this (see consent.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os.path
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from trials import namesakes, sources
from trials.consent import TRUST, may_run
from trials.errors import UserError, describe, did_you_mean
from trials.guest import guest

SHIPPED = Path(__file__).parents[1] / "_usercode"
OURS = ("analysis", "cluster", "orchestrator", "search_spaces", "store", "trials")

_folders: list[Path] = []
_loaded: dict[str, dict[Path, str]] = {}  # hashes of the files that each module was made of, by its name


def is_usercode(name: str) -> bool:
    """Whether a component's name means the user's own code."""
    return ":" in name


def search_in(folder: str | Path) -> None:
    """Look for relative ``file.py`` names (and modules) in ``folder`` too, after the working directory and before the
    folders named earlier. A study begins with it: what was changed since it was imported will be imported anew."""
    _forget_changed()
    namesakes.begin()
    path = Path(folder).resolve()
    if path in _folders:
        _folders.remove(path)
    _folders.insert(0, path)


@contextlib.contextmanager
def reading_in(folder: str | Path) -> Iterator[None]:
    """Look for files in ``folder`` too, meanwhile, as ``search_in`` does: they are read, and nothing of them is run."""
    path = Path(folder).resolve()
    _folders.insert(0, path)
    try:
        yield
    finally:
        _folders.remove(path)


def load(name: str, place: str) -> Callable[..., Any]:
    """The function called ``name``. UserError at ``place`` where file, module or function is missing or broken."""
    source, _, function = name.rpartition(":")
    if not may_run():
        raise UserError(f"{place}: {name} is the study's own code, which only looking at results does not run; {TRUST}")
    module = _load_file(find(source, place), place) if source.endswith(".py") else _load_module(source, place)
    found = getattr(module, function, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(f"{place}: {source} has no function {function!r}; {did_you_mean(function, names)}")
    return found  # type: ignore[no-any-return]


def check_params(name: str, params: Mapping[str, Any], leading: int, place: str) -> None:
    """Raise UserError unless the function, if it may run, takes ``leading`` positional arguments, then ``params``."""
    if not may_run():
        return _check_module(name.rpartition(":")[0], place)
    signature = inspect.signature(load(name, place))
    try:
        signature.bind(*[None] * leading, **params)
    except TypeError as error:
        raise UserError(f"{place}: {name}{signature} does not take these parameters: {error}") from None


def parameters(name: str, leading: int, place: str) -> list[str]:
    """The parameters after ``leading`` positional ones, of the function or, where it may not run, its ``def``."""
    if may_run():
        found = inspect.signature(load(name, place)).parameters.values()
        return [p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][leading:]
    source, _, function = name.rpartition(":")
    try:
        file = find(source if source.endswith(".py") else f"{source.replace('.', '/')}.py", place)
        return sources.parameters(file, function)[leading:]
    except (UserError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"{place}: what {name} takes cannot be told without running it; give all its parameters in a "
                        f"mapping, or {TRUST}") from None


def fingerprint(names: Iterable[str]) -> str | None:
    """A short hash of the source files behind the user-code ``names`` and of what these import beside them, as they
    were when they were imported; None if there are none."""
    contents = {f"{file} {content}" for name in names if is_usercode(name)
                for file, content in _contents(name).items()}
    return hashlib.blake2b("\n".join(sorted(contents)).encode(), digest_size=8).hexdigest() if contents else None


def earlier_fingerprint(names: Iterable[str]) -> str | None:
    """What earlier versions gave for all names of a study: of the named files alone."""
    digest, any_found = hashlib.blake2b(digest_size=8), False
    for name in sorted(set(filter(is_usercode, names))):
        if (file := _source(name)) is not None:
            digest.update(file.read_bytes())
            any_found = True
    return digest.hexdigest() if any_found else None


def _contents(name: str) -> dict[str, str]:
    """Hashes of the files of a user's code, by their paths beside it, which are the same on each machine; of what is
    installed, that of the function's file alone."""
    load(name, name)
    source = name.rpartition(":")[0]
    module = _alias(find(source, name)) if source.endswith(".py") else source
    file = None if module in _loaded else _source(name)
    found = _loaded.get(module, {}) if file is None else sources.digest([file])
    top = os.path.commonpath([each.parent for each in found]) if found else ""
    return {each.relative_to(top).as_posix(): content for each, content in found.items()}


def _source(name: str) -> Path | None:
    """The file that a function is written in."""
    with contextlib.suppress(TypeError):  # of an object that can be called
        file = inspect.getsourcefile(load(name, name))
        return None if file is None else Path(file)
    return None


def home(source: str, place: str) -> Path | None:
    """The file that a user's code is named by: of a module in a package, the package's. None for what is installed."""
    if source.endswith(".py"):
        return find(source, place)
    path = Path(getattr(_load_module(source.partition(".")[0], place), "__file__", None) or sys.executable)
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    return path if folder in (Path.cwd(), SHIPPED, *_folders) else None


def modules() -> list[ModuleType]:
    """The user's modules that are loaded: those named, and those of the files beside that they import."""
    files = {str(file) for hashes in _loaded.values() for file in hashes}
    return [module for module in list(sys.modules.values()) if getattr(module, "__file__", None) in files]


def _forget_changed() -> None:
    """Forget the modules whose files are no longer as they were imported, as happens in a notebook."""
    for name, hashes in list(_loaded.items()):
        if sources.changed(hashes):
            del _loaded[name]
            sys.modules.pop(name, None)
            for each, module in list(sys.modules.items()):
                if (file := getattr(module, "__file__", None)) and Path(file) in hashes:
                    del sys.modules[each]
    importlib.invalidate_caches()


def shipped(source: str) -> Path:
    """Where a user's file called ``source`` lies after it has travelled; always below SHIPPED."""
    path = PurePath(source)
    return SHIPPED.joinpath(*("_up" if part == ".." else part for part in path.relative_to(path.anchor).parts))


def find(source: str, place: str) -> Path:
    """The file called ``source``: as it has travelled, or below the working directory or a study's folder. Raises
    UserError at ``place``."""
    if os.path.isfile(there := shipped(source)):
        return there
    folders = dict.fromkeys((Path.cwd(), *_folders))
    for folder in folders:
        path = folder / source
        if os.path.isfile(path):  # which, unlike the method of Path, says no to a name that is too long
            return path.resolve()
    raise UserError(f"{place}: no file {source!r} in {', '.join(map(str, folders))}")


def _load_file(path: Path, place: str) -> ModuleType:
    alias = _alias(path)
    beside = _loaded.get(alias) or sources.closure(path)
    namesakes.claim(path, beside, place)
    _append(path.parent)
    if alias in sys.modules:
        return sys.modules[alias]
    spec = importlib.util.spec_from_file_location(alias, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        with guest(0, "import", whose=f"{place}: {path}"):
            spec.loader.exec_module(module)
    except UserError:
        del sys.modules[alias]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[alias]
        raise UserError(f"{place}: {path} cannot be imported: {describe(error)}") from error
    _loaded[alias] = sources.digest(beside)
    return module


def _alias(path: Path) -> str:
    return f"_usercode_{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"


def _load_module(source: str, place: str) -> ModuleType:
    for folder in (SHIPPED, Path.cwd(), *_folders):
        _append(folder)
    _check_module(source, place)
    if source in sys.modules:
        return sys.modules[source]
    try:
        with guest(0, "import", whose=f"{place}: {source}"):
            module = importlib.import_module(source)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{place}: module {source!r} cannot be imported: {describe(error)}") from error
    if (file := home(source.partition(".")[0], place)) is not None:
        beside = sources.closure(file)
        namesakes.claim(file, beside, place)
        _loaded[source] = sources.digest(beside)
    return module


def _check_module(source: str, place: str) -> None:
    """Raise UserError for what is not the user's: os:system is no model, and a task would be called at once."""
    top = source.partition(".")[0]
    if not source.endswith(".py") and (top in sys.stdlib_module_names or top in OURS):
        whose = "package of phasesweep's own" if top in OURS else "module of Python's own"
        raise UserError(f"{place}: {top!r} is a {whose}, not your code; if you have a file of that name, write "
                        f"{source.replace('.', '/')}.py:function")


def _append(folder: Path) -> None:
    # Ours before the user's: an editable install finds our packages only after everything on the path.
    for entry in (str(Path(__file__).parents[1]), str(folder)):
        if entry not in sys.path:
            sys.path.append(entry)
