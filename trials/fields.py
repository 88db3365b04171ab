"""Declared parameters of components (tasks, models, optimizers, knobs) and their validation.

A component is a frozen dataclass. Its ``real`` fields are hyperparameters that may differ from lane to lane of a pack;
all other fields (counts, flags, choices) are structure: trials that differ in them cannot share a pack.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from trials.errors import UserError, did_you_mean

C = TypeVar("C")
LARGEST = 2**53  # whole numbers up to here survive in every table and file format


def real(default: float, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False,
         open_high: bool = False, help: str) -> Any:
    """A real hyperparameter in [low, high]; ``open_low``/``open_high`` exclude the end. Lanes may differ in it."""
    return _field(float, default, low=low, high=high, open_low=open_low, open_high=open_high, help=help)


def count(default: int, *, low: int = 0, high: int | None = None, help: str) -> Any:
    """A whole number in [low, high]."""
    return _field(int, default, low=low, high=LARGEST if high is None else high, help=help)


def flag(default: bool, *, help: str) -> Any:
    """True or false."""
    return _field(bool, default, help=help)


def choice(default: str, options: tuple[str, ...], *, help: str) -> Any:
    """One of a few words."""
    return _field(str, default, options=options, help=help)


def _field(kind: type, default: Any, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, **metadata})


def declared(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The declared fields of a component class, by name, in order."""
    return {f.name: f for f in dataclasses.fields(cls)}


def real_names(cls: type) -> tuple[str, ...]:
    """Names of the fields in which lanes of one pack may differ."""
    return tuple(name for name, f in declared(cls).items() if f.metadata["kind"] is float)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number that a float holds: no bool, not infinite, no whole number of a thousand digits."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_free(value: Any, place: str) -> Any:
    """Return ``value``, a parameter of a user's own code, with 0 for -0; UserError for whole numbers that no table
    holds."""
    if isinstance(value, Mapping):
        return {key: check_free(item, place) for key, item in value.items()}
    if isinstance(value, list):
        return [check_free(item, place) for item in value]
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"{place}: expected whole numbers of at most 2^53 in size, got {value!r:.40}")
    return value + 0.0 if isinstance(value, float) else value


def check(field: dataclasses.Field[Any], value: Any, place: str) -> Any:
    """Return ``value`` in the field's type, or raise UserError naming ``place`` and what was expected."""
    kind, meta = field.metadata["kind"], field.metadata
    wrong = UserError(f"{place}: expected {expectation(field)}, got {value!r}")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind is str:
        if value not in meta["options"]:
            raise UserError(f"{wrong}; {did_you_mean(value, meta['options'])}")
        return value
    if not is_number(value) or (kind is int and value != int(value)):
        raise wrong
    low, high = meta["low"], meta["high"]
    below = value <= low if meta.get("open_low") else value < low
    above = value >= high if meta.get("open_high") else value > high
    if above and high == LARGEST:
        raise UserError(f"{place}: expected a whole number of at most 2^53 = {LARGEST}, got {value!r}")
    if below or above:
        raise wrong
    return kind(value) + kind(0)  # so that -0.0 is 0.0, and not another trial


def expectation(field: dataclasses.Field[Any]) -> str:
    """What a field accepts, in words: ``a number in [0, 1)``."""
    kind, meta = field.metadata["kind"], field.metadata
    if kind is bool:
        return "true or false"
    if kind is str:
        return "one of " + ", ".join(meta["options"])
    noun = "a number" if kind is float else "a whole number"
    low, high = meta["low"], meta["high"]
    if math.isinf(low) and math.isinf(high):
        return noun
    if high in (math.inf, LARGEST):
        return f"{noun} {'above' if meta.get('open_low') else 'of at least'} {low:g}"
    left, right = "(" if meta.get("open_low") else "[", ")" if meta.get("open_high") else "]"
    return f"{noun} in {left}{low:g}, {high:g}{right}"


def parse(cls: type[C], params: Mapping[str, Any], place: str) -> C:
    """Build a component from its parameters; unknown keys, wrong types and ranges raise UserError at ``place``."""
    known = declared(cls)
    for key in params:
        if key not in known:
            raise UserError(f"{place}.{key}: no such key; {did_you_mean(key, known)}")
    return cls(**{key: check(known[key], value, f"{place}.{key}") for key, value in params.items()})
