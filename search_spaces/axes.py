"""Axes: what a study varies. An axis is a finite list of values, or a range for designs that sample."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trials.errors import UserError, did_you_mean
from trials.fields import LARGEST, check, check_free, choice, count, declared, is_number
from trials.spec import Path

Field = dataclasses.Field[Any]
FORMS = ("values", "low", "high", "num", "scale", "replicates")
_HOW = "expected values: [...], or low, high, num and scale"


@dataclass(frozen=True)
class Values:
    """A finite axis: the listed values, in order."""

    path: Path
    values: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.values)

    def at(self, u: float) -> Any:
        """The value at ``u`` in [0, 1): each value has an equal share."""
        return self.values[int(u * self.size)]

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that bound the others."""
        return self.values

    def form(self) -> dict[str, Any]:
        """The axis as a study file writes it."""
        return {"values": list(self.values)}


@dataclass(frozen=True)
class Range:
    """All numbers, or all whole numbers, in [low, high]; ``log`` gives every factor an equal share."""

    path: Path
    low: float
    high: float
    log: bool
    integer: bool

    @property
    def size(self) -> int | None:
        """Number of values; None if they are a continuum."""
        return int(self.high - self.low) + 1 if self.integer else None

    def at(self, u: float) -> float:
        """The value at ``u`` in [0, 1)."""
        half = 0.5 if self.integer else 0.0  # each whole number is the interval that rounds to it
        value = interpolate(self.low - half, self.high + half, u, self.log)
        return min(max(round(value) if self.integer else value, self.low), self.high)

    @property
    def extremes(self) -> tuple[float, float]:
        """Values that bound the others."""
        return self.low, self.high

    def form(self) -> dict[str, Any]:
        """The axis as a study file writes it."""
        return {"low": self.low, "high": self.high, "scale": "log" if self.log else "linear"}


Axis = Values | Range


@dataclass(frozen=True)
class _Form:
    num: int = count(2, low=2, high=10**6, help="points of a grid, both ends included")
    scale: str = choice("linear", ("linear", "log"), help="spacing")
    replicates: int = count(1, low=1, high=10**6, help="seeds, counted up from the trial's own")


def interpolate(low: float, high: float, t: float, log: bool) -> float:
    """The number a fraction ``t`` of the way from low to high, with 12 significant digits: enough to tell values
    apart, and few enough that 0.01 is 0.01 however it was computed, so that a finer grid finds its old trials."""
    if log:
        return tidy(math.exp((1 - t) * math.log(low) + t * math.log(high)))
    return tidy((1 - t) * low + t * high)


def tidy(value: float) -> float:
    """``value`` with 12 significant digits."""
    return float(f"{value:.12g}")


def expand(space: Mapping[str, Any]) -> dict[str, Any]:
    """``space:`` with dotted keys nested and bare lists written as ``values``, so that overrides meet them by path."""
    result: dict[str, Any] = {}
    for key, item in space.items():
        inner, parts = result, key.split(".")
        for part in parts[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise _no_axis(part, inner)
        form = {"values": item} if isinstance(item, list) else dict(item) if isinstance(item, Mapping) else item
        known = inner.setdefault(parts[-1], form)
        if known is not form:
            if not (isinstance(known, dict) and isinstance(form, dict)) or known.keys() & form.keys():
                raise UserError(f"space.{key}: this axis is given twice; remove one of them")
            known.update(form)
    return result


def flatten(space: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every axis of an expanded ``space:`` as (dotted key, form)."""
    for key, item in space.items():
        name = above + key
        item = {"values": item} if isinstance(item, list) else item
        if not isinstance(item, Mapping):
            raise _no_axis(name, item)
        nested = {k: v for k, v in item.items()
                  if isinstance(v, Mapping) or (isinstance(v, list) and k not in FORMS)}
        form = {k: v for k, v in item.items() if k not in nested}
        if form or not nested:
            yield name, form
        yield from flatten(nested, f"{name}.")


def _no_axis(name: str, item: Any) -> UserError:
    """That this is no axis, and how to write the one that is probably meant."""
    parts = [part.strip() for part in item.split(",")] if isinstance(item, str) else [json.dumps(item, default=str)]
    fix = f"[{', '.join(parts)}]"
    if name == "seed" and isinstance(item, int):
        fix = f"{{replicates: {item}}} for so many seeds, or {fix} for that one"
    return UserError(f"space.{name}: {_HOW}, got {item!r}; write {fix}")


def parse_axis(path: Path, fields: Sequence[Field | None], form: Mapping[str, Any], place: str, seed: int) -> Axis:
    """The axis at ``path``. ``fields`` are what it sets, one for each component it may belong to (None for user code);
    ``seed`` is the trial's own. Raises UserError at ``place``."""
    for key in form:
        if key not in FORMS:
            raise UserError(f"{place}.{key}: no such key; {did_you_mean(key, FORMS)}")
    counts = {key: check(declared(_Form)[key], form[key], f"{place}.{key}")
              for key in declared(_Form) if key in form}
    if "replicates" in form:
        if path != ("seed",):
            raise UserError(f"{place}.replicates: only seed has replicates; {_HOW}")
        _only(form, {"replicates"}, place)
        return Values(path, tuple(range(seed, seed + counts["replicates"])))
    if "values" in form:
        _only(form, {"values"}, place)
        return Values(path, _values(fields, form["values"], f"{place}.values"))
    if path == ("seed",):
        raise UserError(f"{place}: expected replicates: N, or values: [...]")
    for key in ("low", "high"):
        if key not in form:
            raise UserError(f"{place}.{key}: missing; {_HOW}")
    return _range(path, fields, form, counts, place)


def distinct(values: Sequence[Any], place: str) -> tuple[Any, ...]:
    """``values``; UserError if there is none, or two are equal."""
    if not values:
        raise UserError(f"{place}: expected at least one value, got none")
    seen: dict[str, int] = {}
    for i, value in enumerate(values):
        first = seen.setdefault(json.dumps(value, sort_keys=True), i)
        if first != i:
            raise UserError(f"{place}[{i}]: the same as {place.rpartition('.')[2]}[{first}], {value!r}; remove one")
    return tuple(values)


def _only(form: Mapping[str, Any], allowed: set[str], place: str) -> None:
    extra = sorted(set(form) - allowed)
    if extra:
        raise UserError(f"{place}: give either {', '.join(sorted(allowed))} or {', '.join(extra)}, not both; "
                        "listed values stand as they are, on any scale")


def _values(fields: Sequence[Field | None], values: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise UserError(f"{place}: expected a list, got {values!r}")
    values = [_checked(fields, value, f"{place}[{i}]") for i, value in enumerate(values)]
    return distinct(_one_kind(values, place), place)


def _checked(fields: Sequence[Field | None], value: Any, place: str) -> Any:
    for field in fields:
        value = check_free(value, place) if field is None else check(field, value, place)
    return value


def _one_kind(values: list[Any], place: str) -> list[Any]:
    """Values of one type, for parameters of user code: of 4 and 8.0 both are whole numbers, of 4 and 8.5 neither."""
    first: dict[type, Any] = {}
    for value in values:
        first.setdefault(type(value), value)
    if first.keys() == {int, float}:
        number = int if all(value == int(value) and abs(value) <= LARGEST for value in values) else float
        return [number(value) for value in values]
    if type(None) in first:
        raise UserError(f"{place}[{values.index(None)}]: null cannot be swept; give a value that your code takes for "
                        "none of it, such as 0")
    if len(first) > 1:
        raise UserError(f"{place}: expected values of one type, got {' and '.join(map(repr, first.values()))}")
    return values


def _range(path: Path, fields: Sequence[Field | None], form: Mapping[str, Any], counts: Mapping[str, Any],
           place: str) -> Axis:
    kinds = {field.metadata["kind"] for field in fields if field is not None}
    if kinds & {bool, str}:
        raise UserError(f"{place}: this is not a number and has no range; give values: [...]")
    low, high = (_checked(fields, form[key], f"{place}.{key}") for key in ("low", "high"))
    for key, end in (("low", low), ("high", high)):
        if not is_number(end):
            raise UserError(f"{place}.{key}: expected a number, got {end!r}")
    integer = isinstance(low, int) and isinstance(high, int)
    log = counts.get("scale") == "log"
    if low >= high:
        raise UserError(f"{place}: expected low below high, got low {low:g} and high {high:g}")
    if log and low <= 0:
        raise UserError(f"{place}.low: expected a number above 0 on a log scale, got {low:g}; list the "
                        "values if 0 is among them, or use scale: linear")
    number = int if integer else float
    low, high = number(low), number(high)
    if "num" not in form:
        return Range(path, low, high, log, integer)
    num = counts["num"]
    inner = (interpolate(low, high, i / (num - 1), log) for i in range(1, num - 1))
    points = (low, *(round(value) if integer else value for value in inner), high)
    if len(set(points)) < num:
        raise UserError(f"{place}.num: {num} points are too many to differ between {low} and {high}; give fewer, or "
                        "values: [...]")
    return Values(path, points)
