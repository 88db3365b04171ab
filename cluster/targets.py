"""Which target the word after ``--to`` means, and its options."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from cluster.errors import ClusterError
from cluster.job import Target

# By what --to says: the class, in its own file, and what the word itself sets.
NAMED: dict[str, tuple[str, str, dict[str, str]]] = {
    "slurm": ("cluster.slurm", "Slurm", {}),
    "kubernetes": ("cluster.kubernetes", "Kubernetes", {}),
    **{provider: ("cluster.cloud", "Cloud", {"provider": provider}) for provider in ("aws", "gcp", "azure")},
}
WORDS = "host:port, ray://host:10001, auto, http://head:8265, " + ", ".join(NAMED)
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def target(to: str, options: Sequence[str] = ()) -> Target | None:
    """What takes a job, with options (``key=value`` each); None where ``to`` is the address of a Ray cluster that this
    process joins itself (see ``existing``).

    Raises ClusterError for an unknown word, or an option that is unknown or of another type.
    """
    if to.startswith(("http://", "https://")):
        module, name, given = "cluster.rayjobs", "RayJobs", {"url": to}
    elif to in NAMED:
        module, name, given = NAMED[to]
    elif ":" in to or to == "auto":
        if options:
            raise ClusterError(f"--with {options[0]}: --to {to} has no options")
        return None
    else:
        raise ClusterError(f"--to {to!r}: expected {WORDS}{_near(to, NAMED)}")
    kind = getattr(importlib.import_module(module), name)
    found: Target = kind(**given, **_parse(options, kind, given, to))
    return found


def _parse(options: Sequence[str], kind: type, given: dict[str, str], to: str) -> dict[str, Any]:
    types = {name: type for name, type in get_type_hints(kind).items() if name not in given}
    defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    found: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or key not in types:
            known = ", ".join(f"{name}={defaults.get(name, '')}" for name in types) or "none"
            raise ClusterError(f"--with {option}: --to {to} has no option {key!r}{_near(key, types)}; there is: "
                               f"{known}")
        try:
            found[key] = BOOLEANS[text.lower()] if types[key] is bool else types[key](text)
        except (KeyError, ValueError):
            raise ClusterError(f"--with {option}: expected {types[key].__name__}, such as {key}={defaults.get(key)}") \
                from None
    return found


def _near(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
