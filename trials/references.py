"""References to a module's tensors that Python holds beside the module's own tables: in a list, a closure.

A trial's tensors stand in for the module's own during a pass (trials/network.py), so they must in these places too.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Container, Iterator, Mapping
from types import CellType, FrameType, GeneratorType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trials.errors import UserError

_PASSING = (FrameType, GeneratorType)  # of functions that are at work
Place = tuple[Any, Any, str]  # container, key in it, and the name of the tensor that it holds there


class _Cell:
    """A variable of a closure, as a container of one."""

    def __init__(self, cell: CellType) -> None:
        self._cell = cell

    def __getitem__(self, key: str) -> Any:
        return self._cell.cell_contents

    def __setitem__(self, key: str, value: Any) -> None:
        self._cell.cell_contents = value


class _Class:
    """The attributes of a class, which are to be set through it."""

    def __init__(self, cls: type) -> None:
        self._class = cls

    def __getitem__(self, key: str) -> Any:
        return vars(self._class)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self._class, key, value)


def references(tensors: Mapping[str, Tensor], tables: Container[int]) -> list[Place]:
    """Where the ``tensors``, by name, are held but in ``tables``, dictionaries that are known by their ids. Raises
    UserError where that is a place that cannot be given another tensor."""
    try:
        return list(_found(tensors, tables))
    except UserError:
        gc.collect()  # it may be held by nothing itself
        return list(_found(tensors, tables))


def _found(tensors: Mapping[str, Tensor], tables: Container[int]) -> Iterator[Place]:
    names, each = {id(value): name for name, value in tensors.items()}, list(tensors.values())
    for holder in gc.get_referrers(*each):
        if id(holder) in {id(each), id(tensors)} or id(holder) in tables or isinstance(holder, _PASSING):
            continue
        found = [(container, key, names[id(value)]) for container, key, value in _items(holder) if id(value) in names]
        if not found:
            name = next((names[id(value)] for value in gc.get_referents(holder) if id(value) in names), "a parameter")
            raise UserError(f"trial.model: {name} is held by a {type(holder).__name__} too, where a trial's values "
                            "cannot be put in its place; take it from its module in forward, or hold it in a list")
        yield from found


def _items(holder: Any) -> Iterator[tuple[Any, Any, Any]]:
    if isinstance(holder, CellType):
        yield _Cell(holder), "", holder.cell_contents
    elif isinstance(holder, dict):
        owner = next((each for each in gc.get_referrers(holder) if isinstance(each, type)
                      and gc.get_referents(vars(each))[0] is holder), None)
        container = holder if owner is None else _Class(owner)
        yield from ((container, key, value) for key, value in dict.items(holder))
    elif isinstance(holder, (list, deque)):
        yield from ((holder, place, value) for place, value in enumerate(holder))
    elif not isinstance(holder, (tuple, type)) and hasattr(holder, "__dict__"):  # which may have no dictionary as yet
        yield from ((vars(holder), key, value) for key, value in vars(holder).items())


def views(tensors: Mapping[str, Tensor], objects: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Those of ``objects``, by what they are called, that lie in the memory of one of ``tensors`` without being it."""
    own = sorted((start, end, name) for name, value in tensors.items() for start, end in [_memory(value)] if end)
    ids = {id(value) for value in tensors.values()}
    for path, value in objects.items():
        if isinstance(value, (Tensor, np.ndarray)) and id(value) not in ids:
            start, end = _memory(value)
            yield from ((path, name) for low, high, name in own if end and low < end and start < high)


def _memory(value: Tensor | np.ndarray[Any, Any]) -> tuple[int, int]:
    """Where its numbers lie, from the first byte to the one behind the last; 0, 0 where it has none."""
    if isinstance(value, np.ndarray):
        address, strides, size, item = value.ctypes.data, value.strides, value.size, value.itemsize
    elif value.layout != torch.strided or value.is_meta:
        return 0, 0
    else:
        item, size, address = value.element_size(), value.numel(), value.data_ptr()
        strides = tuple(item * stride for stride in value.stride())
    reach = [(count - 1) * stride for count, stride in zip(value.shape, strides, strict=True)]
    first, last = (address + sum(part for part in reach if (part > 0) == up) for up in (False, True))
    return (first, last + item) if size else (0, 0)
