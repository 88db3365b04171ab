"""Tensors in a file, to be read when they are wanted, and weights that are made of several of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stored:
    """``load`` reads the tensor, alone, to the CPU. ``trouble`` says why it cannot, or must not, be measured; ``dtype``
    is None where it cannot even be read. ``made`` says of what it is computed, where it is."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    load: Callable[[], Tensor]
    trouble: str = ""
    made: str = ""


def unread(shape: tuple[int, ...], trouble: str) -> Stored:
    """A tensor that is there, but cannot be read."""
    def load() -> Tensor:
        raise AssertionError(trouble)
    return Stored(shape, None, load, trouble)


@dataclass(frozen=True)
class Made:
    """A weight that is made of ``parts``, the first of which is the one most like it."""

    name: str
    parts: tuple[str, ...]
    stored: Stored


def troubled(name: str, parts: Iterable[str], like: Stored, why: str, shape: tuple[int, ...] | None = None) -> Made:
    """A weight of which nothing can be said but why."""
    shape = like.shape if shape is None else shape
    return Made(name, tuple(parts), replace(like, shape=shape, trouble=why, made=""))


def put(stored: Mapping[str, Stored], made: Iterable[Made]) -> dict[str, Stored]:
    """``stored`` with weights instead of their parts, where the first of these was."""
    home: dict[str, Made] = {}
    for each in made:
        if each.name in stored and each.name not in each.parts:
            why = "in the file both as it is and in parts"
            each = troubled(each.name, (each.name, *each.parts), each.stored, why)
        for part in each.parts:
            home.setdefault(part, each)
    found: dict[str, Stored] = {}
    for name, one in stored.items():
        if name in home:
            found[home[name].name] = home[name].stored
        else:
            found[name] = one
    return found


def split(name: str) -> tuple[str, str]:
    """(Its owner, the last word)."""
    owner, _, leaf = name.rpartition(".")
    return owner, leaf


def real(tensor: Tensor) -> Tensor:
    """In float32, or float64 where it is: exact for all shorter types."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def is_real(stored: Stored) -> bool:
    """Whether it holds real numbers."""
    return stored.dtype is not None and stored.dtype.is_floating_point
