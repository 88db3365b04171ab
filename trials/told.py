"""A graph of Python objects as plain data, which can be compared, held by a checkpoint, and made again.

Numbers, text and tensors stand for themselves, all else for a list that begins with a word for what it is. Each object
has a path, such as ``fc1.table['a'][0]``; what is met a second time is told as the path of the first. What cannot be
told so is ``opaque``: known by what it would be pickled as, or by its ``repr``. Of what is ``unseen`` not even a change
is noticed.
"""

from __future__ import annotations

import array
import functools
import gc
import io
import random
import re
import sys
import threading
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextvars import ContextVar
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trials.arrays import tensor_told

PLAIN = (type(None), bool, int, float, str, bytes)
KINDS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque, "dict": dict}
_CODE = (type, ModuleType, MemberDescriptorType, GetSetDescriptorType, torch.dtype, torch.device)
_CALLED = (MethodType, BuiltinFunctionType, functools.partial, staticmethod, classmethod, property)
_DRAWING = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
_DEPTH, _MOST = 30, 20_000  # objects in each other, and objects in all, that are looked at
_BIG = 1 << 24  # bytes of an array or a tensor that models share: taken for data, of which no copy is made


class Telling:
    """One walk. ``known`` are the ids of objects that are looked after elsewhere. Of what models share (``shared``),
    too much to be looked at is taken for data."""

    def __init__(self, known: set[int], shared: bool = False) -> None:
        self.objects: dict[str, Any] = {}  # by path
        self._paths: dict[int, str] = {}
        self._known, self._shared = known, shared
        self._left, self._depth = _MOST, 0

    def tell(self, value: Any, path: str) -> Any:
        """The value as plain data."""
        if type(value) in PLAIN:
            return value
        if isinstance(value, (np.generic, complex, Decimal, Fraction)):
            return _number(value)
        self.objects[path] = value
        if isinstance(value, _CODE):
            return ["code", name(value)]
        if id(value) in self._paths:
            return ["same", self._paths[id(value)]]
        if id(value) in self._known:
            return ["own", name(type(value))]
        self._paths[id(value)] = path
        self._left, self._depth = self._left - 1, self._depth + 1
        try:
            if self._left < 0 or self._depth > _DEPTH:
                return ["opaque" if self._shared else "unseen", name(type(value))]
            return self._parts(value, path)
        except Exception:  # whatever an object of a user may do when it is looked at
            return ["opaque", f"{name(type(value))} {id(value)}"]
        finally:
            self._depth -= 1

    def _parts(self, value: Any, path: str) -> Any:
        if isinstance(value, (Tensor, np.ndarray)):
            return self._array(value, path)
        if type(value) is bytearray:
            return ["bytearray", bytes(value)]
        if isinstance(value, (array.array, memoryview)):
            return ["buffer", value.tobytes(), name(type(value))]
        if isinstance(value, Enum):
            return ["member", value.name, name(type(value)), [
                field for field in self._fields(value, path) if not field[0].startswith("_")]]
        if isinstance(value, ContextVar):
            return ["context", self._each(_context(value), path), name(type(value))]
        if isinstance(value, (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)):
            return ["weak", self._pairs(dict(value), path), name(type(value))]
        if isinstance(value, _DRAWING):
            return ["random", _state(value), name(type(value))]
        for kind, cls in KINDS.items():
            if isinstance(value, cls):
                parts = self._pairs(value, path) if kind == "dict" else self._each(value, path)
                fields = [] if type(value) is cls else self._fields(value, path)
                return [kind, parts, name(type(value)), fields]
        if isinstance(value, FunctionType) and not is_users(value.__module__):
            return ["code", name(value)]
        if isinstance(value, _CALLED):
            return ["calls", [self.tell(part, f"{path}({i})") for i, part in enumerate(_called(value))], name(value)]
        if isinstance(value, functools._lru_cache_wrapper):
            cached = [each for each in gc.get_referents(value) if not isinstance(each, type)]
            return ["cache", [value.cache_info().currsize, *(self.tell(each, f"{path}({i})") for i, each in
                                                             enumerate(cached))], name(value)]
        if isinstance(value, (FunctionType, SimpleNamespace, threading.local, nn.Module)) \
                or is_users(type(value).__module__):
            what = name(value) if isinstance(value, FunctionType) else name(type(value))
            return ["object", self._fields(value, path), what]
        return self._opaque(value, path)

    def _array(self, value: Any, path: str) -> Any:
        if self._shared and value.nbytes > _BIG:
            total = value.sum(dtype=torch.float64) if isinstance(value, Tensor) else value.sum()
            return ["opaque", f"{id(value)} {total}"]
        if isinstance(value, Tensor):
            return tensor_told(value)
        if value.dtype.hasobject or value.dtype.names:
            return ["opaque", [self.tell(value.tolist(), f"{path}[]")]]
        return ["array", torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy()), value.dtype.str,
                list(value.shape)]

    def _each(self, value: Any, path: str) -> list[Any]:
        items = list(value)
        if all(type(item) in PLAIN for item in items):
            return sorted(items, key=lambda item: (type(item).__name__, str(item))) if isinstance(
                value, (set, frozenset)) else items
        return [self.tell(item, f"{path}[{place}]") for place, item in enumerate(items)]

    def _pairs(self, value: dict[Any, Any], path: str) -> list[Any]:
        return [[self.tell(key, f"{path}<{place}>"), self.tell(each, under(path, key, place))]
                for place, (key, each) in enumerate(dict.items(value))]

    def _fields(self, value: Any, path: str) -> list[Any]:
        return [[key, self.tell(each, f"{path}.{key}")] for key, each in fields(value).items()]

    def _opaque(self, value: Any, path: str) -> Any:
        shown = re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:1000]
        if isinstance(value, io.IOBase):
            return ["opaque", shown]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that iterators will not always be pickled
                reduced = value.__reduce_ex__(4)
        except Exception:
            return ["unseen" if hasattr(value, "__next__") else "opaque", shown]
        return ["opaque", [self.tell(reduced, f"{path}()")]]


def _context(value: ContextVar[Any]) -> list[Any]:
    """What it has here, its default where nothing was set, and nothing where it has none."""
    try:
        return [value.get()]
    except LookupError:
        return []


def under(path: str, key: Any, place: int) -> str:
    """The path of what a dictionary has under a key, its ``place``-th; plain keys are told as themselves."""
    return f"{path}[{key!r}]" if type(key) in PLAIN else f"{path}[#{place}]"


def fields(value: Any) -> dict[str, Any]:
    """What an object holds by names: its attributes, its slots, and of a function the cells of its closure."""
    found: dict[str, Any] = {}
    if isinstance(value, FunctionType):
        for key, cell in _cells(value):
            found[key] = cell.cell_contents
        for place, each in enumerate((*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())):
            found[f"default {place}"] = each
    for cls in type(value).__mro__:
        for key, slot in vars(cls).items() if is_users(cls.__module__) else ():
            if isinstance(slot, MemberDescriptorType) and hasattr(value, key):
                found[key] = slot.__get__(value)
    return {**found, **getattr(value, "__dict__", {})}


def put_field(value: Any, key: str, given: Any) -> None:
    """Let ``value`` hold it there."""
    table = getattr(value, "__dict__", {})
    cells = dict(_cells(value)) if isinstance(value, FunctionType) else {}
    if key in cells:
        cells[key].cell_contents = given
    elif key in table or not (key.startswith("default ") or hasattr(type(value), key)):
        table[key] = given
    elif not key.startswith("default "):  # which functions hold in tuples
        object.__setattr__(value, key, given)


def same(left: Any, right: Any, unseen: bool = False) -> bool:
    """Whether two values as they are told are equal; ``unseen`` says whether what is not seen is taken to be."""
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return False
        return (left.shape, left.dtype, left.device) == (right.shape, right.dtype, right.device) and bool(
            ((left == right) | ((left != left) & (right != right))).all())
    if isinstance(left, list) and isinstance(right, list):
        if not unseen and left[:1] == ["unseen"]:
            return False
        return len(left) == len(right) and all(same(mine, theirs, unseen)
                                               for mine, theirs in zip(left, right, strict=True))
    return type(left) is type(right) and (left == right or left != left)


def is_users(module: str | None) -> bool:
    """Whether what is of this module may be a user's: not torch's, NumPy's, Python's or ours."""
    root = (module or "builtins").partition(".")[0]
    return root not in ("torch", "trials", "numpy") and root not in sys.stdlib_module_names


def _cells(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            cell.cell_contents  # noqa: B018
        except ValueError:  # it is empty as yet
            continue
        yield key, cell


def _called(value: Any) -> tuple[Any, ...]:
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords, vars(value)
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    own = getattr(value, "__func__", None)
    return (own,) if isinstance(value, (staticmethod, classmethod)) else (own, value.__self__)


def _number(value: Any) -> list[Any]:
    if isinstance(value, np.generic):
        return ["number", value.dtype.str, value.tobytes()] if not value.dtype.names else ["opaque", repr(value)]
    return ["number", type(value).__name__, str(value)]


def _state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    state = value.getstate() if isinstance(value, random.Random) else value.bit_generator.state if isinstance(
        value, np.random.Generator) else value.get_state(legacy=False)
    return Telling(set()).tell(state, "")


def name(value: Any) -> str:
    """Of a class or a function, with its module."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or type(value).__qualname__}"


def ordered(value: dict[Any, Any]) -> Any:
    """The class whose methods change a dictionary, whatever a subclass makes of them."""
    return OrderedDict if isinstance(value, OrderedDict) else dict
