"""The source files that a user's code consists of: the one that is named, and what it imports beside it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def closure(file: Path) -> list[Path]:
    """``file`` and the modules and packages in its folder that it imports, and those that they import, in a fixed
    order. Found by reading, not by running: an import inside a function counts too."""
    folder = root(file)
    found: dict[Path, None] = dict.fromkeys(_members(file, folder))
    waiting = list(found)
    while waiting:
        for name in _imported(waiting.pop()):
            for each in _modules(folder, name):
                if each not in found:
                    found[each] = None
                    waiting.append(each)
    return sorted(found)


def root(file: Path) -> Path:
    """Where its imports are looked for: of a package's module, above the package."""
    return file.parent.parent if file.name == "__init__.py" else file.parent


def digest(files: Iterable[Path]) -> dict[Path, str]:
    """A hash of the content of each file; empty for one that cannot be read."""
    hashes = {}
    for file in files:
        hashes[file] = ""
        with contextlib.suppress(OSError):
            hashes[file] = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return hashes


def changed(hashes: Mapping[Path, str]) -> bool:
    """Whether the content of one of the files is no longer what it was."""
    return digest(hashes) != hashes


def _members(file: Path, folder: Path) -> list[Path]:
    return _modules(folder, file.parent.name) if file.name == "__init__.py" else [file]


def _modules(folder: Path, name: str) -> list[Path]:
    """The file, or all files of the package, that ``import name`` finds in ``folder``."""
    package, module = folder / name, folder / f"{name}.py"
    with contextlib.suppress(OSError, ValueError):
        if package.is_dir():
            return sorted(file for file in package.rglob("*.py") if file.is_file())
        if module.is_file():
            return [module]
    return []


def _imported(file: Path) -> Iterator[str]:
    """Top-level names of what a file imports; none where it cannot be read."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module",
                                                                                              "__import__"):
                yield from (word.value.split(".")[0] for word in node.args[:1]
                            if isinstance(word, ast.Constant) and isinstance(word.value, str))


def parameters(file: Path, function: str) -> list[str]:
    """The parameters that can be given by name to a function, by its ``def`` in a file, of which nothing is run. Raises
    ValueError where there is not one such ``def``, and what reading and parsing raise."""
    functions = [node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.FunctionDef)]
    [defined] = [node.args for node in functions if node.name == function]
    return [argument.arg for argument in (*defined.args, *defined.kwonlyargs)]
