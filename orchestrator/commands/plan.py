"""Dry run: how many trials a study has, what is already done, and about how long the rest takes here. Writes nothing."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from orchestrator.commands import common
from orchestrator.folder import Folder
from orchestrator.progress import duration
from orchestrator.run import Observed
from orchestrator.store import committed
from orchestrator.survey import Survey, survey
from search_spaces import Axis, Study, Values

EXAMPLE = "phasesweep plan batch_size_phases space.seed.replicates=5"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY and overrides."""
    common.add_study(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the plan."""
    study, results = common.load(args)
    folder = Folder.open(results)
    statuses = committed(folder)
    found = survey(study, statuses, Observed(folder, statuses))
    table = Table(show_header=False, show_edge=False)
    table.add_row("question", study.question)
    table.add_row("swept", "\n".join(_axis(axis) for axis in study.axes))
    table.add_row("trials", f"{found.size:,}")
    table.add_row("done", ", ".join(f"{count:,} {status}" for status, count in sorted(found.done.items())) or "none")
    if found.failed:
        table.add_row("failed", f"{len(found.failed):,}, to be tried again")
    table.add_row("to run", f"{found.pending:,}" + (" at most; the design decides as it goes" if found.open_ended else ""))
    if found.pending:
        for name, value in _estimates(study, found):
            table.add_row(name, value)
    table.add_row("results", results)
    console.print(table)
    return 0


def _axis(axis: Axis) -> str:
    """``batch_size: 10 values, 2 to 1000``, or the range of a continuous axis."""
    name = ".".join(axis.path)
    if isinstance(axis, Values):
        ends = f"{axis.values[0]} to {axis.values[-1]}" if len(axis.values) > 1 else f"{axis.values[0]}"
        return f"{name}: {len(axis.values)} value{'s'[:len(axis.values) != 1]}, {ends}"
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in axis.form().items())


def _estimates(study: Study, found: Survey) -> list[tuple[str, str]]:
    import cluster
    from orchestrator.estimate import estimate

    workers = max(1, int(cluster.local_cpus() // study.resources.cpu))
    timed = estimate(study, found.examples[min(found.examples)], found.examples[max(found.examples)])
    known = sum(found.budgets.values())
    seconds = sum(count * timed.trial_seconds(steps, batch_size, study.measure)
                  for (steps, batch_size), count in found.budgets.items()) * found.pending / max(1, known)
    steps = sum(count * steps for (steps, _), count in found.budgets.items())
    return [
        ("optimizer steps", f"{steps:,}"),
        ("time here", f"about {duration(seconds / workers)} on {workers} workers of {study.resources.cpu:g} CPU "
                      f"({timed.step * 1e6:.0f} us a step + {timed.sample * 1e6:.1f} us a sample, "
                      f"{timed.measurement * 1e3:.0f} ms a measurement; timed just now)"),
        ("memory", f"about {timed.bytes / 2**20:,.0f} MB a worker, and 350 MB for its libraries"),
    ]
