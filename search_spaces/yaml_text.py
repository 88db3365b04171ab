"""Strict YAML: plain data only, no duplicate keys, no aliases, numbers that mean what they look like, and text that is
safe to show on a terminal.

Scalars follow YAML 1.2: ``1e-3`` is a number, ``010`` is ten, and ``yes`` is a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import yaml  # type: ignore[import-untyped]

from trials.errors import CONTROL, UserError

MAX_DEPTH = 20
MAX_NODES = 20_000  # keys, values, lists and mappings: what a study goes through takes up to 0.3 ms for each


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("too large")
    return value


# Tag -> pattern of the unquoted scalars it takes, their first characters, conversion.
_SCALARS: dict[str, tuple[re.Pattern[str] | None, list[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"^(?:~|null|)$"), ["~", "n", ""], lambda text: None),
    "bool": (re.compile(r"^(?:true|false)$"), list("tf"), lambda text: text == "true"),
    "int": (re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"), int),
    "float": (re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), list("-+.0123456789"),
              _float),
    "str": (None, [], str),
}
_TAG = "tag:yaml.org,2002:"


# What PyYAML says of the most usual slips, and what to tell whoever made one.
_BLOCK = ("indented unlike the lines above it; keys of one mapping, and items of one list, begin in the same column")
_HINTS = {
    **{f"expected <block end>, but found {token!r}": _BLOCK for token in (
        "<block mapping start>", "<block sequence start>", "<scalar>", "-", "?")},
    "mapping values are not allowed here": "a key stands where none can be: is it indented further than the keys above "
                                           "it, or is there a ': ' in text without quotes?",
    "found character '\\t' that cannot start any token": "indented by a tab; YAML takes spaces only",
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own convention, filled below
    depth = nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed; write ${key}", problem_mark=mark)
        if self.depth == MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_NODES:,} values, too many for a study",
                                       problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes text that any reader, of YAML 1.1 or 1.2, could take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, (_pattern, _first, _) in _SCALARS.items():
    if _pattern is not None:
        _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
        _Dumper.add_implicit_resolver(_TAG + _name, _pattern, _first)


def parse(text: str) -> Any:
    """The one document in ``text`` as mappings with text keys, lists, text, numbers, booleans and None.

    Raises UserError with the line number.
    """
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise UserError(f"line {error.problem_mark.line + 1}: {_HINTS.get(error.problem, error.problem)}") from None
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {error}") from None
    return None if node is None else _plain(node)


def nodes(data: Any) -> int:
    """How many keys, values, lists and mappings ``data`` has, of which ``parse`` reads MAX_NODES at most."""
    if isinstance(data, dict):
        return 1 + sum(1 + nodes(value) for value in data.values())
    return 1 + sum(map(nodes, data)) if isinstance(data, (list, tuple)) else 1


def dump(data: Any) -> str:
    """``data`` as YAML that ``parse`` reads back."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return text


def _plain(node: Any) -> Any:
    place, tag = f"line {node.start_mark.line + 1}", node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.MappingNode) and tag == "map":
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _plain(key_node)
            if not isinstance(key, str):
                raise UserError(f"{place}: expected a key that is text, got {key!r}; quote it")
            if key in mapping:
                raise UserError(f"line {key_node.start_mark.line + 1}: {key}: duplicate key; remove one of them")
            mapping[key] = _plain(value_node)
        return mapping
    if isinstance(node, yaml.SequenceNode) and tag == "seq":
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.ScalarNode) and tag in _SCALARS:
        if control := CONTROL.search(node.value):
            raise UserError(f"{place}: control characters are not allowed in text, got {control[0]!r}")
        try:
            return _SCALARS[tag][2](node.value)
        except ValueError:
            raise UserError(f"{place}: expected {tag}, got {node.value[:40]!r}") from None
    raise UserError(f"{place}: the tag {node.tag} is not allowed; write plain text, numbers, lists and mappings")
