"""A study's file on its way to plain data: top-level keys, ``key=value`` overrides, interpolations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from search_spaces.axes import expand, flatten
from search_spaces.yaml_text import parse
from trials.errors import UserError, did_you_mean
from trials.fields import declared
from trials.spec import elsewhere


@dataclass
class Schema:
    """The top level of a study. ``Any`` is checked where it is used."""

    study: str = MISSING
    question: str = ""
    source: str = ""
    trial: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    design: dict[str, Any] = field(default_factory=dict)
    measure: dict[str, Any] = field(default_factory=dict)
    analysis: list[Any] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)
    device: Any = "auto"
    retries: Any = 1
    pack: Any = "auto"


_EXPECTED: dict[str, tuple[type, str]] = {
    "str": (str, "text"), "dict[str, Any]": (dict, "a mapping of keys to values"), "list[Any]": (list, "a list")}
# One interpolation is one whole value: text around it could double in length from line to line, and a resolver such as
# oc.env would carry the environment into results that are shared.
LONGEST_INTERPOLATION = 1000  # characters: OmegaConf takes half a millisecond for a hundred
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+|\[\d+\])*")
_INTERPOLATION = re.compile(rf"\$\{{\.*{_KEY.pattern}\}}")


def merge(raw: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """The study as plain data with every top-level key: ``raw`` with the overrides put in, interpolations resolved, and
    ``space`` as {dotted key: form} in the order in which it was written.

    An override replaces the value at its key. Raises UserError.
    """
    if not isinstance(raw, Mapping):
        raise UserError(f"expected a mapping with the keys {', '.join(declared(Schema))}")
    for key in raw:
        _check_top(key, key, raw.get("trial"))
    written: list[str] = []
    if isinstance(raw.get("space"), Mapping):
        written = [name for key, item in raw["space"].items() for name, _ in flatten(expand({key: item}))]
        raw = {**raw, "space": expand(raw["space"])}
    _check_interpolations(raw, "")
    config = OmegaConf.structured(Schema)
    for key, value in raw.items():
        _set(config, key, value, key)
    for override in overrides:
        _override(config, override)
    plain: dict[str, Any] = _resolve(config, cast("dict[str, Any]", OmegaConf.to_container(config)), "")
    if plain["study"] == MISSING:
        raise UserError("study: missing; every study needs a name")
    axes = dict(flatten(plain["space"]))
    order = [name for name in written if name in axes]
    plain["space"] = {name: axes[name] for name in dict.fromkeys([*order, *axes])}
    return plain


def _check_top(key: str, place: str, trial: Any, others: Sequence[str] = ()) -> None:
    if key not in declared(Schema):
        hint = "did you mean space.seed.replicates?" if key == "replicates" else elsewhere(key, trial)
        raise UserError(f"{place}: no such key; {hint or did_you_mean(key, [*declared(Schema), *others])}")


def _override(config: DictConfig, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise UserError(f"override {override!r}: expected key=value, for instance trial.optimizer.lr=0.1")
    trial = OmegaConf.to_container(config.trial)
    _check_top(re.split(r"[.\[]", key)[0], f"override {override!r}", trial, ("results", "into"))
    try:
        value = parse(text)
    except UserError as error:
        raise UserError(f"override {override!r}: {error}") from None
    _check_interpolations(value, key)
    if key == "space" and isinstance(value, Mapping):
        value = expand(value)
    _set(config, key, value, f"override {override!r}")


def _set(config: DictConfig, key: str, value: Any, place: str) -> None:
    kind, noun = _EXPECTED.get(str(declared(Schema)[key].type) if key in declared(Schema) else "", (object, ""))
    if not isinstance(value, kind):
        raise UserError(f"{place}: expected {noun}, got {value!r}")
    try:
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{place}: {str(error).splitlines()[0]}") from None
    except (ValueError, TypeError):
        raise UserError(f"{place}: there is a list on the way, of which [0] is the first item") from None


def _check_interpolations(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_interpolations(item, f"{place}.{key}".lstrip("."))
            if "${" in key:
                raise UserError(f"{place}: a key cannot hold an interpolation, got {key!r}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_interpolations(item, f"{place}[{i}]")
    elif isinstance(value, str) and "${" in value and not (
            len(value) <= LONGEST_INTERPOLATION and _INTERPOLATION.fullmatch(value)):
        raise UserError(f"{place}: expected an interpolation to be the whole value and a key of this study, such as "
                        f"${{trial.seed}}, got {value!r}; resolvers such as oc.env are not available")


def _resolve(config: Any, plain: dict[str, Any] | list[Any], place: str) -> Any:
    """``plain`` with each interpolation replaced by what ``config`` makes of it, which must be a single value."""
    if isinstance(plain, dict):
        return {key: _resolve_item(config, key, item, f"{place}.{key}".lstrip(".")) for key, item in plain.items()}
    return [_resolve_item(config, i, item, f"{place}[{i}]") for i, item in enumerate(plain)]


def _resolve_item(config: Any, key: Any, item: Any, place: str) -> Any:
    if isinstance(item, (dict, list)):
        return _resolve(config[key], item, place)
    if not (isinstance(item, str) and "${" in item):
        return item
    try:
        value = config[key]
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{place}: {item} leads nowhere: {str(error).splitlines()[0]}") from None
    if isinstance(value, (DictConfig, ListConfig)):
        raise UserError(f"{place}: expected {item} to name a single value, not a mapping or a list")
    return value
