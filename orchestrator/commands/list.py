"""List what there is: bundled studies, and the tasks, models, optimizers, knobs and designs a study can name, and the
metrics that it emits."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from search_spaces import list_studies
from search_spaces.designs.base import DESIGNS
from trials import records
from trials.fields import declared, expectation
from trials.knobs.base import KNOBS, places
from trials.models.base import MODELS
from trials.optimizers.base import OPTIMIZERS
from trials.tasks.base import TASKS

HELP = "studies, tasks, models, optimizers, knobs, designs, metrics"
EXAMPLE = "phasesweep list knobs"

COMPONENTS = {"tasks": TASKS, "models": MODELS, "optimizers": OPTIMIZERS, "knobs": KNOBS, "designs": DESIGNS}


def add(parser: argparse.ArgumentParser) -> None:
    """What to list."""
    parser.add_argument("what", nargs="?", default="studies", choices=["studies", *COMPONENTS, "metrics"])


def main(args: argparse.Namespace, console: Console) -> int:
    """Print one table."""
    if args.what == "studies":
        console.print(_studies())
    elif args.what == "metrics":
        console.print(_metrics())
    else:
        console.print(_components(COMPONENTS[args.what].classes))  # type: ignore[attr-defined]
    return 0


def _studies() -> Table:
    table = Table("study", "trials", "question", "swept", "source", show_edge=False)
    for name, study in list_studies().items():
        table.add_row(name, f"{study.size:,}", study.question, ", ".join(study.axis_columns), study.source)
    return table


def _components(classes: Mapping[str, type[Any]]) -> Table:
    table = Table("name", "what", "parameters (default): range", show_edge=False)
    for name, cls in classes.items():
        fields = "\n".join(f"{key} ({field.default}): {expectation(field)}".replace("[", r"\[")
                           for key, field in declared(cls).items())
        what = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ").replace("[", r"\[")
        if hasattr(cls, "penalty"):  # a knob
            what = f"{', '.join(places(cls))}: {what}"
        table.add_row(name, what, fields)
    return table


def _metrics() -> Table:
    table = Table("table", "column", "unit", "meaning", show_edge=False)
    for name, columns in records.COLUMNS.items():
        for column in columns:
            table.add_row(name, column.name, column.unit, column.help.replace("[", r"\["))
    return table
