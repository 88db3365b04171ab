"""What all models of a process share: the global names of a user's files, and the attributes of their classes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, MutableMapping
from types import ModuleType
from typing import Any

from trials import usercode
from trials.made import Making
from trials.told import Telling, same

Owner = ModuleType | type
GONE = ["gone"]
_first: dict[Owner, tuple[dict[str, Any], dict[str, Any]]] = {}  # as they were when a model had first been made


class Table(MutableMapping[str, Any]):
    """The names that an owner holds, but for those ``without``; they are set one by one."""

    def __init__(self, table: Any, without: Iterable[Any] = (), owner: Owner | None = None) -> None:
        self._table, self._without, self._owner = table, set(without), owner

    def __getitem__(self, key: str) -> Any:
        return self._table[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if self._owner is not None:
            setattr(self._owner, key, value)
        else:
            self._table[key] = value

    def __delitem__(self, key: str) -> None:
        if self._owner is not None:
            delattr(self._owner, key)
        else:
            del self._table[key]

    def __iter__(self) -> Iterator[str]:
        return iter([key for key in self._table if key not in self._without and not key.startswith("__")
                     and not isinstance(self._table[key], (ModuleType, type))])

    def __len__(self) -> int:
        return len(list(iter(self)))


def owners(classes: Iterable[type]) -> dict[str, Owner]:
    """The user's modules and classes, and those of ``classes``, by what they are called: ``zoo.``, ``Net.``."""
    modules = dict.fromkeys(usercode.modules())
    modules.update(dict.fromkeys(sys.modules[cls.__module__] for cls in classes if cls.__module__ in sys.modules))
    found: dict[str, Owner] = {}
    each: list[Owner] = [*modules, *classes, *inside(modules)]
    for owner in {id(one): one for one in each}.values():
        name, module = owner.__name__.rpartition(".")[2], getattr(owner, "__module__", owner.__name__)
        found[f"{name}." if f"{name}." not in found else f"{name} of {module}."] = owner
    return found


def inside(modules: Iterable[ModuleType]) -> Iterator[type]:
    """The classes that are written in them."""
    for module in modules:
        yield from (each for each in vars(module).values() if isinstance(each, type)
                    and each.__module__ == module.__name__)


def table(owner: Owner) -> Table:
    """What it holds."""
    return Table(vars(owner), {"_abc_impl"}, owner)


def read(owner: Owner, prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """What it holds, as plain data and as objects, by path."""
    telling = Telling(set(), shared=True)
    values = {prefix + key: telling.tell(value, prefix + key) for key, value in table(owner).items()}
    return values, telling.objects


def keep_first(classes: Iterable[type]) -> None:
    """Remember what models share, if it is seen for the first time."""
    for owner in owners(classes).values():
        if owner not in _first and (isinstance(owner, ModuleType) or _is_global(owner)):
            _first[owner] = read(owner)


def begin() -> None:
    """All that models share, as it was when the first of them had been made in this process."""
    for owner, (values, objects) in _first.items():
        now, making, held = read(owner)[0], Making(objects), table(owner)
        for key in {**values, **now}:
            if key not in values:
                del held[key]
            elif key not in now or not same(values[key], now[key], unseen=True):
                held[key] = making.make(values[key], key)


def _is_global(cls: type) -> bool:
    return getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls
