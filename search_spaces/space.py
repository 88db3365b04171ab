"""The ``space:`` of a study: which place in a trial each key means, and trials with values put in there."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Container, Mapping, Sequence
from functools import cached_property
from typing import Any

from search_spaces.axes import Axis, Field, Values, distinct, parse_axis
from trials import consent, usercode
from trials.errors import UserError, did_you_mean
from trials.fields import declared
from trials.knobs.base import KNOBS
from trials.spec import (
    GROUPS,
    USER_ARGUMENTS,
    Budget,
    Path,
    Scalars,
    TrialSpec,
    leaves,
    parse_component,
    parse_knob,
)

Component = Mapping[str, Any]


def parse_space(forms: Mapping[str, Mapping[str, Any]], trial: Mapping[str, Any], base: TrialSpec) -> tuple[Axis, ...]:
    """The axes of ``space``, given as {dotted key: form}; ``base`` is ``trial``, parsed. Raises UserError."""
    whole = {group: _components(group, forms[group], trial.get(group) or {}) for group in GROUPS if group in forms}
    components = {group: whole.get(group, (getattr(base, group),)) for group in GROUPS}
    places = _places(components, base.knobs)
    anything = {group for group in USER_ARGUMENTS for component in components[group]
                if _takes_anything(component["name"], f"trial.{group}.name")}
    if not consent.may_run():  # a results folder without the code: its study.yaml gives every path in full
        for path in (tuple(key.split(".")) for key in forms):
            own = [usercode.is_usercode(component["name"]) for component in components.get(path[0], ())]
            if len(path) > 1 and any(own):
                places.setdefault(path, [None if mine else _ABSENT for mine in own])
    untold = {group for group in USER_ARGUMENTS if not consent.may_run() and not all(
        _can_be_told(group, component["name"]) for component in components[group])}
    keys: dict[Path, str] = {}
    axes: list[Axis] = []
    for key, form in forms.items():
        path = _find(key, places, anything, untold)
        if path[0] in untold and path not in places:
            places[path] = [None if usercode.is_usercode(each["name"]) else _ABSENT for each in components[path[0]]]
        if path in keys:
            raise UserError(f"space.{key}: the same as space.{keys[path]}; remove one of them")
        keys[path] = key
        if path in places and _ABSENT in places[path]:
            component = whole[path[0]][places[path].index(_ABSENT)]
            raise UserError(f"space.{key}: {path[0]} {component['name']!r} has no {'.'.join(path[1:])}; remove the "
                            f"axis, or that {path[0]} from space.{path[0]}.values")
        axes.append(Values(path, whole[key]) if key in whole
                    else parse_axis(path, places.get(path) or _knob_field(path), form, f"space.{key}", base.seed))
    return tuple(axes)


class Substitution:
    """Trials as a base with values put in: checked once, so that millions of trials cost microseconds each.

    Specs share what they do not vary, and nothing may write to it.
    """

    def __init__(self, base: TrialSpec, axes: Sequence[Axis]) -> None:
        self._base, self._axes = base, axes

    @cached_property
    def _parts(self) -> dict[str, Any]:
        parts = {name: getattr(self._base, name) for name in declared(TrialSpec)}
        added = {axis.path[1]: parse_knob(axis.path[1], {}, "space")
                 for axis in self._axes if axis.path[0] == "knobs" and axis.path[1] not in self._base.knobs}
        return {**parts, "knobs": {**self._base.knobs, **added}}

    @cached_property
    def _order(self) -> list[tuple[int, Path]]:
        """(position in a point, path) of each axis, whole components before their parameters."""
        return sorted(((i, axis.path) for i, axis in enumerate(self._axes)), key=lambda item: len(item[1]))

    def __call__(self, point: Sequence[Any]) -> TrialSpec:
        """The trial with ``point[i]`` at the path of axis i."""
        parts = dict(self._parts)
        for i, path in self._order:
            _put(parts, path, point[i])
        return TrialSpec(**parts)

    def first(self, chosen: Axis | None = None, value: Any = None) -> TrialSpec:
        """The trial with every axis at its first value, save ``chosen`` at ``value``."""
        return self([value if axis is chosen else axis.extremes[0] for axis in self._axes])


    def components(self, axis: Axis) -> list[TrialSpec]:
        """A trial for each value of a whole-component axis; none for other axes."""
        whole = len(axis.path) == 1 and axis.path[0] in GROUPS
        return [self.first(axis, value) for value in axis.extremes] if whole else []

    @cached_property
    def examples(self) -> list[TrialSpec]:
        """Trials that have between them every column there is."""
        return [self.first(), *(spec for axis in self._axes for spec in self.components(axis))]


def _put(parts: dict[str, Any], path: Path, value: Any) -> None:
    """Set ``value`` at ``path``; mappings on the way are copied, for other trials share them."""
    for key in path[:-1]:
        parts[key] = parts = dict(parts[key])
    parts[path[-1]] = value


_ABSENT: Any = object()  # stands where one of several components lacks a parameter


def _places(components: Mapping[str, Sequence[Component]], knobs: Mapping[str, Any]) -> dict[Path, list[Field | None]]:
    """Every path that an axis may set, with the declared field (None for user code) of each component there."""
    places: dict[Path, list[Field | None]] = {(group,): [] for group in GROUPS}
    for group, candidates in components.items():
        for i, component in enumerate(candidates):
            for path, field in _parameters(group, component).items():
                places.setdefault((group, *path), [_ABSENT] * len(candidates))[i] = field
    for name in knobs:
        places.update({(path := ("knobs", name, key)): _knob_field(path) for key in declared(KNOBS.classes[name])})
    places.update({("budget", key): [field] for key, field in declared(Budget).items()})
    places.update({(key,): [field] for key, field in declared(Scalars).items()})
    return places


def _parameters(group: str, component: Component) -> dict[Path, Field | None]:
    name = component["name"]
    if not usercode.is_usercode(name):
        return {(key,): field for key, field in declared(GROUPS[group].classes[name]).items()}
    given = [path for path, _ in leaves(component) if path != ("name",)]
    try:
        accepted = _accepted(group, name, f"trial.{group}.name")
    except UserError:
        if consent.may_run():
            raise
        accepted = []
    return dict.fromkeys([*given, *((key,) for key in accepted)])


def _accepted(group: str, name: str, place: str) -> list[str]:
    """The names of the parameters that a component takes."""
    if not usercode.is_usercode(name):
        return list(declared(GROUPS[group].get(name, place)))
    return usercode.parameters(name, USER_ARGUMENTS.get(group, 0), place)


def _can_be_told(group: str, name: str) -> bool:
    """Whether a component's parameters are known, with nothing run."""
    try:
        _accepted(group, name, "")
    except UserError:
        return False
    return True


def _takes_anything(name: str, place: str) -> bool:
    """Whether a user's function has ``**parameters``."""
    return usercode.is_usercode(name) and consent.may_run() and any(
        each.kind is each.VAR_KEYWORD for each in inspect.signature(usercode.load(name, place)).parameters.values())


def _components(group: str, form: Mapping[str, Any], base: Any) -> tuple[Component, ...]:
    """The components of a whole-component axis. A bare name keeps those of the base's parameters that the study gives
    and the named component takes; a mapping stands for itself."""
    place = f"space.{group}.values"
    values = form.get("values")
    if set(form) != {"values"} or not isinstance(values, list):
        raise UserError(f"space.{group}: expected values: [...], each a name or a mapping with a name")
    given = {} if isinstance(base, str) else {key: value for key, value in base.items() if key != "name"}
    components = []
    for i, value in enumerate(values):
        if isinstance(value, str):
            taken = _accepted(group, value, f"{place}[{i}]")
            value = {"name": value, **{key: item for key, item in given.items() if key in taken}}
        components.append(parse_component(group, value, f"{place}[{i}]"))
    return distinct(components, place)


def _knob_field(path: Path) -> list[Field | None]:
    return [declared(KNOBS.classes[path[1]])[path[2]]]


def _find(key: str, places: Mapping[Path, Any], anything: Container[str], untold: Collection[str]) -> Path:
    """The one path that ``key`` is a tail of, or all of; a knob that the trial lacks needs its own name in the key.
    Components in ``anything`` take parameters of any name; what those in ``untold`` take, only their own code could
    tell, which is not to run: a key that is nobody else's is theirs, for a run has asked their code."""
    tail = tuple(key.split("."))
    if tail in places:
        return tail
    absent = [("knobs", name, field) for name, cls in KNOBS.classes.items() for field in declared(cls)]
    found = [path for path in places if path[-len(tail):] == tail]
    if not found and len(tail) > 1:
        found = [path for path in absent if path[-len(tail):] == tail]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"space.{key}: ambiguous; write {' or '.join('.'.join(path) for path in found)}")
    if len(untold) == len(tail) == 1:
        return (*untold, *tail)
    if len(tail) == 1 and untold:
        ways = " or ".join(f"space.{group}.{key}" for group in sorted(untold))
        raise UserError(f"space.{key}: whose parameter this is cannot be told without running your code; write {ways}, "
                        f"or {consent.TRUST}")
    if len(tail) == 2 and tail[0] in anything:
        raise UserError(f"space.{key}: {tail[0]} takes parameters of any name (**); give trial.{key} a value, which "
                        "the axis then replaces")
    paths = [*places, *absent]
    known = {".".join(path[i:]) for path in paths for i in range(len(path)) if path in places or len(path[i:]) > 1}
    if len(tail) > 1 and ".".join(tail[:-1]) in known:
        known |= {".".join((*tail[:-1], form)) for form in ("values", "low", "high", "num", "scale")}
    if tail[0] == "trial" and any(path[-len(tail[1:]):] == tail[1:] for path in paths if tail[1:]):
        raise UserError(f"space.{key}: the keys of space begin below trial; write space.{'.'.join(tail[1:])}")
    raise UserError(f"space.{key}: no such key in the trial; {did_you_mean(key, known)}")
