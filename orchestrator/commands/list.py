"""List what there is: bundled studies, the tasks, models, optimizers, schedules, knobs and designs that a study can
name, and the metrics that it emits."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search_spaces import list_studies
from search_spaces.designs.base import DESIGNS
from trials import records
from trials.fields import LARGEST, declared
from trials.knobs.base import KNOBS, Knob, places
from trials.models.base import MODELS
from trials.optimizers.base import OPTIMIZERS
from trials.schedules.base import SCHEDULES
from trials.tasks.base import TASKS

EXAMPLE = "phasesweep list knobs"

COMPONENTS = {"tasks": TASKS, "models": MODELS, "optimizers": OPTIMIZERS, "schedules": SCHEDULES, "knobs": KNOBS,
              "designs": DESIGNS}


def add(parser: argparse.ArgumentParser) -> None:
    """What to list."""
    choices = ["studies", *COMPONENTS, "metrics"]
    parser.add_argument("what", nargs="?", default="studies", choices=choices, metavar="what",
                        help=f"one of {', '.join(choices)}; default: studies")


def main(args: argparse.Namespace, console: Console) -> int:
    """Print a table."""
    if args.what == "studies":
        console.print(_studies())
    elif args.what == "metrics":
        for name, columns in records.COLUMNS.items():
            console.print(_table(f"column of {name}", "meaning [unit]", (
                (column.name, column.help + (f" [{column.unit}]" if column.unit not in ("", "1") else ""))
                for column in columns)))
    else:
        console.print(_components(args.what[:-1], COMPONENTS[args.what].classes))  # type: ignore[attr-defined]
    return 0


def _table(first: str, second: str, rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns, of which the first is never cut."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(first, no_wrap=True, style="bold")
    table.add_column(escape(second))
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _studies() -> Table:
    return _table("study", "question", (
        (name, f"{study.question}\n{study.size:,} trials over {', '.join(study.axis_columns)}\n{study.source}")
        for name, study in list_studies().items()))


def _components(kind: str, classes: Mapping[str, type[Any]]) -> Table:
    def text(cls: type[Any]) -> str:
        place = f"{', '.join(places(cls))}: " if issubclass(cls, Knob) else ""
        lines = [f"{name} = {_plain(field.default)} in {compact(field)}: {field.metadata['help']}"
                 for name, field in declared(cls).items()]
        return "\n".join([place + first_sentence(cls), *lines])
    second = "place: formula (source); " if kind == "knob" else "what it is; "
    return _table(kind, second + "parameter = default in range", ((name, text(cls)) for name, cls in classes.items()))


def first_sentence(cls: type[Any]) -> str:
    """The first sentence of a class's documentation, on one line."""
    paragraph = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].replace("``", "").split())
    return re.split(r"(?<=[.])\s+(?=[A-Z])", paragraph, maxsplit=1)[0]


def compact(field: dataclasses.Field[Any]) -> str:
    """What a field accepts, as a set: ``[0, 1)``, ``{1, 2, ...}``, ``{true, false}``."""
    kind, meta = field.metadata["kind"], field.metadata
    if kind is bool:
        return "{true, false}"
    if kind is str:
        return f"{{{', '.join(meta['options'])}}}"
    low, high = meta["low"], meta["high"]
    if kind is int:
        return f"{{{low}, {low + 1}, ...}}" if high >= LARGEST else f"{{{low}, ..., {high}}}"
    left = "(" if meta["open_low"] or math.isinf(low) else "["
    right = ")" if meta["open_high"] or math.isinf(high) else "]"
    return f"{left}{low:g}, {high:g}{right}"


def _plain(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)
