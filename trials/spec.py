"""One trial as plain data, its identity, and its flat columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import pyarrow as pa

from trials import usercode
from trials.errors import UserError, did_you_mean
from trials.fields import check_free, choice, count, declared, parse, real
from trials.knobs.base import KNOBS
from trials.models.base import MODELS
from trials.optimizers.base import OPTIMIZERS
from trials.registry import Registry
from trials.schedules.base import SCHEDULES
from trials.schedules.constant import Constant
from trials.tasks.base import TASKS

Path = tuple[str, ...]
GROUPS: dict[str, Registry[Any]] = {"task": TASKS, "model": MODELS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}
# A component that a trial may leave out, and that its canonical form leaves out too: ids are older than it is.
CONSTANT: dict[str, Any] = {"name": "constant", **asdict(Constant())}
# How many positional arguments a user's own function gets before its parameters.
USER_ARGUMENTS = {"task": 0, "model": 2}


@dataclass(frozen=True)
class Budget:
    """How long a trial trains: ``steps`` or ``epochs`` (exactly one), or less where the training loss gets low."""

    steps: int = count(0, help="optimizer steps")
    epochs: float = real(0.0, low=0, help="passes over the training set")
    stop_train_loss: float = real(0.0, low=0, help="stop once the training loss is below this")


@dataclass(frozen=True)
class Scalars:
    """What a trial has beside its components."""

    batch_size: int = count(32, low=1, help="samples per step")
    seed: int = count(0, help="seed of every random stream of the trial")
    precision: str = choice("float32", ("float32", "float64"), help="floating type of weights and data")


@dataclass(frozen=True)
class TrialSpec:
    """One trial: components as mappings with a ``name`` and all their parameters, checked and in their types.

    Make one with ``parse_trial``. ``knobs`` maps a knob's name to its parameters. Everything that changes a trial's
    numbers is here and nothing else: device, pack and cluster are not.
    """

    task: Mapping[str, Any]
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    budget: Mapping[str, Any]
    schedule: Mapping[str, Any] = field(default_factory=CONSTANT.copy)
    knobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    batch_size: int = 32
    seed: int = 0
    precision: str = "float32"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The canonical form: nested plain data, parameters at their defaults left out.

        Leaving them out lets a component gain a parameter without changing the identity of the trials already done.
        So a default never changes: a new default is a new name.
        """
        return {group: _without_defaults(cls, value) for group, cls, value in _parts(self)}

    @cached_property
    def canonical(self) -> str:
        """The canonical form as JSON with sorted keys."""
        return json.dumps(self.config, sort_keys=True, separators=(",", ":"))

    @cached_property
    def trial_id(self) -> str:
        """20 hexadecimal digits of the hash of the canonical form."""
        return hashlib.blake2b(self.canonical.encode(), digest_size=10).hexdigest()

    def flat(self) -> dict[str, Any]:
        """Every config value by column name; lists and mappings as JSON."""
        return {column(path): value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
                for path, value in self.leaves()}

    def leaves(self) -> Iterator[tuple[Path, Any]]:
        """Every (path, config value)."""
        return leaves({part.name: getattr(self, part.name) for part in fields(self)})


def parse_trial(config: Mapping[str, Any], place: str = "trial") -> TrialSpec:
    """Check a nested configuration and fill in the defaults.

    Raises UserError, naming ``place`` and key, for unknown keys and names, wrong types and values out of range.
    """
    known = {*GROUPS, "knobs", "budget", *declared(Scalars)}
    for key in config:
        if key not in known:
            raise UserError(f"{place}.{key}: no such key; {elsewhere(key, config) or did_you_mean(key, known)}")
    config = {**config, "schedule": CONSTANT if config.get("schedule") is None else config["schedule"]}
    for key in (*GROUPS, "budget"):
        if config.get(key) is None:
            raise UserError(f"{place}.{key}: missing; every trial needs one")
    components = {key: parse_component(key, config[key], f"{place}.{key}") for key in GROUPS}
    knobs = {name: parse_knob(name, params, f"{place}.knobs.{name}")
             for name, params in _mapping(config.get("knobs") or {}, f"{place}.knobs").items()}
    budget = asdict(parse(Budget, _mapping(config["budget"], f"{place}.budget"), f"{place}.budget"))
    if (budget["steps"] > 0) == (budget["epochs"] > 0):
        raise UserError(f"{place}.budget: give either steps or epochs, above 0, and not both")
    scalars = asdict(parse(Scalars, {key: config[key] for key in declared(Scalars) if key in config}, place))
    return TrialSpec(components["task"], components["model"], components["optimizer"], budget, components["schedule"],
                     knobs, **scalars)


def parse_component(group: str, value: Any, place: str) -> dict[str, Any]:
    """A task, model, optimizer or schedule: ``{name: ..., parameters}`` or just its name."""
    given = {"name": value} if isinstance(value, str) else dict(_mapping(value, place))
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"{place}.name: missing; {did_you_mean('', GROUPS[group].classes)}")
    if usercode.is_usercode(name):
        if group not in USER_ARGUMENTS:
            raise UserError(f"{place}.name: your own code can be a task or a model, not {_a(group)}")
        usercode.check_params(name, check_free(given, place), USER_ARGUMENTS[group], place)
        return {"name": name, **given}
    return {"name": name, **asdict(parse(GROUPS[group].get(name, f"{place}.name"), given, place))}


def parse_knob(name: str, params: Any, place: str) -> dict[str, Any]:
    """A knob's parameters."""
    knob: Any = parse(KNOBS.get(name, place), _mapping(params or {}, place), place)
    return asdict(knob)


def make(group: str, component: Mapping[str, Any]) -> Any:
    """The task, model, optimizer, schedule or knob object that a checked mapping describes (not for user code)."""
    params = {key: value for key, value in component.items() if key != "name"}
    registry = KNOBS if group == "knob" else GROUPS[group]
    return registry.get(component["name"], group)(**params)


def leaves(config: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every (path, value) of a nested configuration that is not itself a mapping, in order."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def elsewhere(key: str, trial: Any) -> str:
    """``did you mean trial.optimizer.lr?`` if ``trial``, as a study writes it, has a place for ``key``; else empty."""
    trial = trial if isinstance(trial, Mapping) else {}
    found = [path for path, _ in leaves(trial) if len(path) > 1]
    found += [(name,) for name in declared(Scalars)] + [("budget", name) for name in declared(Budget)]
    for group, registry in GROUPS.items():
        given = trial.get(group)
        name = given.get("name") if isinstance(given, Mapping) else given
        if isinstance(name, str) and usercode.is_usercode(name):
            with suppress(UserError):  # another message than the one that is asked for
                found += [(group, field) for field in usercode.parameters(name, USER_ARGUMENTS.get(group, 0), name)]
        elif isinstance(name, str) and name in registry.classes:
            found += [(group, field) for field in declared(registry.classes[name])]
    found += [("knobs", name, field) for name, knob in KNOBS.classes.items() for field in declared(knob)]
    places = dict.fromkeys(".".join(("trial", *path)) for path in found if path[-1] == key)
    return f"did you mean {' or '.join(places)}?" if 0 < len(places) <= 4 else ""


def column(path: Path) -> str:
    """The flat name of a config value: ``lr``, ``batch_size``, ``model_width``, ``dropout_p``, ``budget_epochs``."""
    if path[-1] == "name":
        return path[0]
    if path[0] == "optimizer":
        return path[-1]
    return "_".join(path[1:] if path[0] == "knobs" else path)


def columns_by_end(specs: Iterable[TrialSpec]) -> dict[str, str]:
    """The columns of the trials, by every end of their paths, dotted, that no path of another column has too."""
    found: dict[str, set[str]] = {}
    for path in {path for spec in specs for path, _ in spec.leaves()}:
        for start in range(len(path)):
            found.setdefault(".".join(path[start:]), set()).add(column(path))
    return {end: columns.pop() for end, columns in found.items() if len(columns) == 1}


def column_types(flat: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """The Arrow type of each column of ``TrialSpec.flat``."""
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    return {name: types[type(value)] for name, value in flat.items()}


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: expected a mapping of keys to values, got {value!r}")
    return value


def _parts(spec: TrialSpec) -> Iterator[tuple[str, type | None, Any]]:
    """(key, class with the defaults, value) of each part of the canonical form."""
    for group, registry in GROUPS.items():
        component = getattr(spec, group)
        if (group, component) == ("schedule", CONSTANT):
            continue
        yield group, None if usercode.is_usercode(component["name"]) else registry.classes[component["name"]], component
    yield "budget", Budget, spec.budget
    yield "trial", Scalars, {name: getattr(spec, name) for name in declared(Scalars)}
    for name, params in spec.knobs.items():
        yield f"knobs.{name}", KNOBS.classes[name], params
    if list(spec.knobs) != sorted(spec.knobs):  # the order in which they apply at one place can change the numbers
        yield "order", None, {str(number): name for number, name in enumerate(spec.knobs)}


def _without_defaults(cls: type | None, value: Mapping[str, Any]) -> dict[str, Any]:
    fields = declared(cls) if cls is not None else {}
    return {key: item for key, item in value.items() if key not in fields or fields[key].default != item}
