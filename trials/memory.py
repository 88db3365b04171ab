"""What a model remembers in Python: attributes of its modules, of their classes, and global names beside these.

Parameters and buffers stay outside of a module (trials/network.py). Whatever else its forward pass changes (a counter,
a temperature, a list, a tensor that is no buffer) stays in it, and is read, compared and put back here. Values are kept
as plain data, which a checkpoint can hold: numbers, text, tensors, and lists that begin with a word for what they are.
What cannot be told so, an open file say, is known by its ``repr`` alone.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator, MutableMapping
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Values = dict[str, Any]  # by name: ``fc1.calls`` of a module, ``Net.calls`` of a class, ``zoo.CALLS`` of a file

_NOT_STATE = {*nn.Module().__dict__, "_flat_weights", "_flat_weight_refs"} - {"training"}
_PLAIN = (type(None), bool, int, float, str, bytes)
_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, staticmethod, classmethod, property, nn.Module)
_DEPTH, _MOST = 6, 20_000  # containers in each other, and values in all, that are looked at
_first: Values = {}  # of classes and files, which all models of a process share, as they were at first


class Memory:
    """Of ``module``, whose tensors are called ``tensors``. Nothing where all of its classes are torch's or ours: these
    change nothing."""

    def __init__(self, module: nn.Module, tensors: set[str]) -> None:
        classes = {cls: None for child in module.modules() for cls in type(child).__mro__ if _is_users(cls)}
        self._module, self._tensors, self._classes = module, tensors, list(classes)
        shared = self._read(list(self._shared()))
        for name, value in shared.items():
            _first.setdefault(name, value)

    def now(self) -> Values:
        """Everything, by name."""
        return self._read([*self._own(), *self._shared()]) if self._classes else {}

    def changed(self, before: Values) -> list[str]:
        """The names of what is otherwise now."""
        now = self.now()
        return [name for name in {**before, **now} if not _same(before.get(name, _GONE), now.get(name, _GONE))]

    def since(self, before: Values) -> Values | None:
        """What is otherwise now; None where it is more than can be told by plain data."""
        now = self.now()
        changes = {name: now.get(name, _GONE) for name in self.changed(before)}
        return changes if all(map(_is_told, changes.values())) else None

    def put(self, values: Values) -> None:
        """Make these as they are given; other names stay."""
        tables: dict[str, list[MutableMapping[str, Any]]] = {}
        for prefix, table in [*self._own(), *self._shared()] if values else ():
            tables.setdefault(prefix, []).append(table)
        for name, told in values.items():
            key = name.rpartition(".")[2]
            there = tables.get(name[: len(name) - len(key)], [])
            for table in [table for table in there if key in table] or there[:1]:
                if told == _GONE:
                    table.pop(key, None)
                else:
                    table[key] = _made(told, table.get(key))

    def put_back(self, before: Values) -> None:
        """Everything as it was ``before``."""
        if before:
            self.put({name: before.get(name, _GONE) for name in self.changed(before)})

    def begin(self) -> None:
        """What models share, as it was when the first of them was made in this process."""
        if self._classes:
            now = self._read(list(self._shared()))
            self.put({name: _first[name] for name in now if name in _first and not _same(_first[name], now[name])})

    def _own(self) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
        for prefix, child in self._module.named_modules():
            prefix = f"{prefix}." if prefix else ""
            made = {getattr(hook, "name", getattr(hook, "_tensor_name", None))  # by torch's hooks at each pass
                    for hook in child._forward_pre_hooks.values() if not _is_users(type(hook))}
            yield prefix, _Without(child.__dict__, _NOT_STATE | made)
            yield prefix, _Without(child._buffers, {key for key in child._buffers if prefix + key in self._tensors})

    def _shared(self) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
        for cls in self._classes:
            yield f"{cls.__name__}.", _OfClass(cls)
        for module in {cls.__module__: None for cls in self._classes}:
            if module in sys.modules:
                yield f"{module.rpartition('.')[2]}.", _Without(vars(sys.modules[module]), set())

    def _read(self, tables: list[tuple[str, MutableMapping[str, Any]]]) -> Values:
        left = [_MOST]
        return {prefix + key: _told(value, left) for prefix, table in tables for key, value in table.items()
                if not key.startswith("__") and not isinstance(value, _CODE)}


class _Without(MutableMapping[str, Any]):
    """A mapping, but for some names."""

    def __init__(self, table: MutableMapping[str, Any], without: set[Any]) -> None:
        self._table, self._without = table, without

    def __getitem__(self, key: str) -> Any:
        return self._table[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._table[key] = value

    def __delitem__(self, key: str) -> None:
        del self._table[key]

    def __iter__(self) -> Iterator[str]:
        return iter([key for key in self._table if key not in self._without])

    def __len__(self) -> int:
        return len(list(iter(self)))


class _OfClass(_Without):
    """The attributes of a class, which can be set one by one."""

    def __init__(self, cls: type) -> None:
        super().__init__(dict(vars(cls)), {"_abc_impl"})
        self._cls = cls

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self._cls, key, value)

    def __delitem__(self, key: str) -> None:
        delattr(self._cls, key)


_GONE = ["gone"]
_KINDS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}


def _is_users(cls: type) -> bool:
    root = cls.__module__.partition(".")[0]
    return root not in ("torch", "trials", "numpy") and root not in sys.stdlib_module_names


def _told(value: Any, left: list[int], depth: int = 0) -> Any:
    """A value as plain data; of containers too deep or too large only the ``repr`` of their kind."""
    left[0] -= 1
    if type(value) in _PLAIN:
        return value
    try:
        if isinstance(value, Tensor):
            return value.detach().clone()
        if depth < _DEPTH and left[0] > 0:
            return _told_parts(value, left, depth + 1)
        return ["opaque", type(value).__name__]
    except Exception:  # whatever an object of a user may do when it is looked at
        return ["opaque", f"{type(value).__name__} {id(value)}"]


def _told_parts(value: Any, left: list[int], depth: int) -> Any:
    for name, kind in _KINDS.items():
        if type(value) is kind:
            return [name, [_told(each, left, depth) for each in value]]
    if isinstance(value, dict):
        return ["dict", [[_told(key, left, depth), _told(each, left, depth)] for key, each in value.items()]]
    if isinstance(value, np.ndarray):
        return ["array", torch.from_numpy(value.copy())]
    if isinstance(value, np.random.Generator):
        return ["random", _told(value.bit_generator.state, left, depth)]
    if isinstance(value, (random.Random, np.random.RandomState)):
        state = value.getstate() if isinstance(value, random.Random) else value.get_state(legacy=False)
        return ["random", _told(state, left, depth)]
    if isinstance(value, torch.Generator):
        return ["random", value.get_state()]
    known = _is_users(type(value)) or isinstance(value, SimpleNamespace)
    if isinstance(value, _CODE) or not (known and hasattr(value, "__dict__")):
        return ["opaque", repr(value)[:1000]]
    return ["object", [[key, _told(each, left, depth)] for key, each in vars(value).items()]]


def _made(told: Any, now: Any) -> Any:
    """The inverse; what can be changed in place (``now``, the value there is) is, for others may hold it too."""
    if isinstance(told, Tensor):
        return told.to(now.device) if isinstance(now, Tensor) else told.clone()
    if not isinstance(told, list):
        return told
    kind, parts = told
    if kind == "opaque":
        return now
    if kind == "array":
        return parts.numpy().copy()
    if kind == "object":
        for key, value in parts:
            vars(now)[key] = _made(value, vars(now).get(key))
        return now
    if kind == "random":
        return _with_state(now, parts)
    if kind == "dict":
        table = now if isinstance(now, dict) else {}
        made = {_made(key, None): _made(value, table.get(key) if isinstance(key, _PLAIN) else None)
                for key, value in parts}
        table.clear()
        table.update(made)
        return table
    before = list(now) if isinstance(now, (list, tuple, deque)) else []
    each = [_made(part, before[place] if place < len(before) else None) for place, part in enumerate(parts)]
    if kind in ("list", "deque") and type(now) is _KINDS[kind]:
        now.clear()
        now.extend(each)
        return now
    return _KINDS[kind](each)


def _with_state(now: Any, state: Any) -> Any:
    if isinstance(now, torch.Generator):
        now.set_state(state)
    elif isinstance(now, np.random.Generator):
        now.bit_generator.state = _made(state, None)
    elif isinstance(now, np.random.RandomState):
        now.set_state(_made(state, None))
    elif isinstance(now, random.Random):
        now.setstate(_made(state, None))
    return now


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return False
        return (left.shape, left.dtype, left.device) == (right.shape, right.dtype, right.device) and bool(
            ((left == right) | ((left != left) & (right != right))).all())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return type(left) is type(right) and (left == right or left != left)


def _is_told(told: Any) -> bool:
    """Whether there is nothing in it that is known by its ``repr`` alone."""
    return not isinstance(told, list) or (told[:1] != ["opaque"] and all(map(_is_told, told)))
