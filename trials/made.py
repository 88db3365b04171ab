"""The objects that plain data (told.py) tells of: those that are there, changed in place, and new ones for the rest."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trials.arrays import array_made, buffer_made, tensor_made
from trials.told import KINDS, PLAIN, fields, name, ordered, put_field, under

_NUMBERS = {"complex": complex, "Decimal": Decimal, "Fraction": Fraction}


class Making:
    """``there`` are objects by their paths. What can be is changed in place, for others may hold it too."""

    def __init__(self, there: Mapping[str, Any]) -> None:
        self._there = dict(there)

    def make(self, told: Any, path: str) -> Any:
        """The object of this path, as it is told."""
        there = self._there.get(path)
        made = self._made(told, path, there)
        if type(made) not in PLAIN:
            self._there[path] = made
        return made

    def _made(self, told: Any, path: str, there: Any) -> Any:
        if isinstance(told, Tensor):
            return tensor_made(told, there)
        if not isinstance(told, list):
            return told
        kind, parts, *more = told
        if kind == "same":
            return self._there.get(parts)
        if kind == "number":
            return _NUMBERS[parts](*more) if parts in _NUMBERS else np.frombuffer(more[0], parts)[0]
        if kind == "array":
            return array_made(parts, there, *more)
        if kind == "bytearray":
            made = there if type(there) is bytearray else bytearray()
            made[:] = parts
            return made
        if kind == "buffer":
            return buffer_made(parts, there)
        if kind == "random":
            return _with_state(there, parts)
        if kind == "member":
            return self._member(type(there)[parts], more[1] if len(more) > 1 else [], path)
        if kind == "weak":
            self._weak(there, parts, path)
        elif kind == "context":
            for place, part in enumerate(parts):
                there.set(self.make(part, f"{path}[{place}]"))
        elif kind == "calls":
            for place, part in enumerate(parts):
                self.make(part, f"{path}({place})")
        elif kind == "cache":
            size, *held = parts
            if there.cache_info().currsize != size or there.cache_parameters()["maxsize"] is not None:
                there.cache_clear()
            else:  # what it has given out may be changed since
                for place, part in enumerate(held):
                    self.make(part, f"{path}({place})")
        elif kind == "object":
            self._fill(there, parts, path)
        elif kind == "dict":
            return self._dict(there if isinstance(there, dict) else {}, parts, path, *more)
        elif kind in KINDS:
            return self._container(kind, there, parts, path, *more)
        return there

    def _fill(self, there: Any, parts: list[Any], path: str) -> None:
        for key, part in parts:
            put_field(there, key, self.make(part, f"{path}.{key}"))
        for key in fields(there).keys() - {key for key, _ in parts}:
            if key in getattr(there, "__dict__", {}):
                del there.__dict__[key]
            elif not key.startswith("default "):
                object.__delattr__(there, key)

    def _member(self, member: Any, parts: list[Any], path: str) -> Any:
        for key, part in parts:
            put_field(member, key, self.make(part, f"{path}.{key}"))
        for key in vars(member).keys() - {key for key, _ in parts}:
            if not key.startswith("_"):
                delattr(member, key)
        return member

    def _dict(self, there: dict[Any, Any], parts: list[Any], path: str, what: str = "", fields: Any = ()) -> Any:
        self._there[path] = there  # it may hold itself
        made = {}
        for place, (key, part) in enumerate(parts):
            made[self.make(key, f"{path}<{place}>")] = self.make(part, under(path, key, place))
        ordered(there).clear(there)
        ordered(there).update(there, made)
        if fields:
            self._fill(there, fields, path)
        return there

    def _weak(self, there: Any, parts: list[Any], path: str) -> None:
        made = [(self.make(key, f"{path}<{place}>"), self.make(part, under(path, key, place)))
                for place, (key, part) in enumerate(parts)]
        there.clear()
        there.update({key: each for key, each in made if key is not None and each is not None})

    def _container(self, kind: str, there: Any, parts: list[Any], path: str, what: str = "", fields: Any = ()) -> Any:
        base: Any = KINDS[kind]
        changes = kind in ("list", "deque", "set")
        found = there if isinstance(there, base) else base()
        if changes:
            self._there[path] = found
        each = [self.make(part, f"{path}[{place}]") for place, part in enumerate(parts)]
        if not changes:
            same = isinstance(there, base) and len(there) == len(each) and all(
                mine is theirs for mine, theirs in zip(there, each, strict=True))
            return there if same else base.__new__(type(found), each)
        base.clear(found)
        (set.update if base is set else deque.extend if base is deque else list.extend)(found, each)
        if fields:
            self._fill(found, fields, path)
        return found


def can_make(told: Any, path: str, there: Mapping[str, Any]) -> bool:
    """Whether it can be made where only the objects ``there`` are: nothing in it is opaque, and what is more than plain
    containers is of a class that is there already."""
    if not isinstance(told, list):
        return True
    kind, parts, *more = told
    if kind in ("opaque", "unseen", "cache", "buffer", "weak", "context"):
        return False
    if kind in ("same", "number", "array", "bytearray"):
        return True
    if kind == "code":
        return path in there and name(there[path]) == parts
    if kind == "own":
        return path in there
    found = there.get(path)
    if more and more[0] not in {f"builtins.{kind}", "collections.deque"}:
        owner = found if kind == "calls" or hasattr(found, "__code__") else type(found)
        if found is None or name(owner) != more[0]:
            return False
    if kind in ("random", "member"):
        return True
    inner = [*more[1:]] if kind in KINDS else []
    if kind == "object":
        return all(can_make(part, f"{path}.{key}", there) for key, part in parts)
    if kind == "dict":
        items = [can_make(part, under(path, key, place), there) and can_make(key, f"{path}<{place}>", there)
                 for place, (key, part) in enumerate(parts)]
    else:
        left, right = "()" if kind == "calls" else "[]"
        items = [can_make(part, f"{path}{left}{place}{right}", there) for place, part in enumerate(parts)]
    return all(items) and all(can_make(part, f"{path}.{key}", there) for each in inner for key, part in each)


def _with_state(there: Any, state: Any) -> Any:
    if isinstance(there, torch.Generator):
        there.set_state(state)
        return there
    made = Making({}).make(state, "")
    if isinstance(there, np.random.Generator):
        there.bit_generator.state = made
    elif isinstance(there, np.random.RandomState):
        there.set_state(made)
    elif isinstance(there, random.Random):
        there.setstate(made)
    return there
