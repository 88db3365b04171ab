"""Monkey patching of what all models of a process share: torch's modules, functions and global hooks, and NumPy's.

A model that sets ``nn.Linear.forward`` or registers a global hook changes every model that the process trains after it,
and which trials those are is chance. What was changed is put back and named; the way to change one model is a subclass.
"""

from __future__ import annotations

import builtins
import math
import random
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module

_MODULES: tuple[ModuleType, ...] = (torch, torch.nn, torch.nn.functional, torch.nn.init, np, random, math,
                                     builtins)
_CLASSES: tuple[type, ...] = tuple(dict.fromkeys([torch.Tensor, torch.nn.Parameter, torch.nn.Module, *(
    each for each in vars(torch.nn).values() if isinstance(each, type) and issubclass(each, torch.nn.Module))]))
_HOOKS = {name: hooks for name, hooks in vars(module).items()
          if name.startswith("_global") and isinstance(hooks, dict)}
# What Python writes into a class when it is first used; what torch writes into itself: its compiler when it is first
# imported, and set_default_dtype.
_BY_PYTHON = frozenset(("__abstractmethods__", "_abc_impl", "__annotations__", "__annotations_cache__", "__doc__",
                        "__slotnames__"))  # the last by copies of its instances
_BY_TORCH = frozenset(("torch.Storage", "torch.manual_seed", "torch.nn.Module.__init__", "torch.nn.Module.__setstate__",
                       "torch.nn.Module.___needs_generation_tag_patch"))
_last: list[dict[Any, Any]] = []


def snapshot() -> list[dict[Any, Any]]:
    """The names of all that is watched, as they are now."""
    global _last
    if not _same(_last):
        _last = [dict(table) for table in _tables()]
    return _last


def put_back(before: list[dict[Any, Any]]) -> list[str]:
    """Make it as it was in a ``snapshot``; the names of what had changed."""
    if _same(before):
        return []
    changed = []
    owners: list[ModuleType | type] = [*_MODULES, *_CLASSES]
    for owner, names in zip(owners, before, strict=False):
        now = dict(vars(owner))
        new = [name for name in now if name not in names and isinstance(owner, type)]
        old = [name for name, value in names.items() if now.get(name) is not value]
        for name in {*new, *old} - _BY_PYTHON:
            if (called := f"{_called(owner)}.{name}") in _BY_TORCH:
                continue
            changed.append(called)
            if name in names:
                setattr(owner, name, names[name])
            else:
                delattr(owner, name)
    for (name, hooks), then in zip(_HOOKS.items(), before[-len(_HOOKS):], strict=True):
        if hooks != then:
            changed.append(f"the global hooks of modules ({name.removeprefix('_global_')})")
            hooks.clear()
            hooks.update(then)
    return sorted(changed)


def _tables() -> list[Any]:
    return [*map(vars, _MODULES), *map(vars, _CLASSES), *_HOOKS.values()]


def _same(tables: list[dict[Any, Any]]) -> bool:
    """Whether nothing has changed; equal values that are not the same are taken for a change by those who look."""
    try:
        return len(tables) > 0 and all(now == then for now, then in zip(_tables(), tables, strict=True))
    except (ValueError, TypeError, RuntimeError):  # values whose comparison is no truth value
        return False


def _called(owner: ModuleType | type) -> str:
    if isinstance(owner, ModuleType):
        return owner.__name__
    return f"torch.nn.{owner.__name__}" if issubclass(owner, torch.nn.Module) else f"torch.{owner.__name__}"
