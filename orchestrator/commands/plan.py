"""Dry run: how many trials a study has, what is done, and about how long the rest takes here. Writes nothing."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.beforehand import check_models, first_step, unfit_here
from orchestrator.commands import common
from orchestrator.folder import Folder
from orchestrator.progress import duration
from orchestrator.run import look
from orchestrator.shipping import own_code
from orchestrator.survey import Survey
from search_spaces import Axis, Study, Values
from search_spaces.decidable import check_measured, doubts
from trials import consent, storage
from trials.measure import steps as moments

EXAMPLE = "phasesweep plan batch_size_phases space.seed.replicates=5"

LIBRARIES = 480  # MB that a Ray worker with torch takes


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, overrides and --trust."""
    common.add_study(parser)
    common.add_trust(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the plan."""
    with common.looking(args, own=True) as (study, results):
        _show(study, results, look(study, Folder.open(results)), console)
    return 0


def _show(study: Study, results: str, found: Survey, console: Console) -> None:
    rows = [("question", study.question), ("swept", "\n".join(_axis(axis) for axis in study.axes) or "nothing"),
            ("trials", f"{found.size:,}"),
            ("done", ", ".join(f"{count:,} {status}" for status, count in sorted(found.done.items())) or "none")]
    if found.failed:
        rows.append(("failed", f"{len(found.failed):,}, to be tried again"))
    most = " at most; the design decides as it goes" if found.open_ended else ""
    rows.append(("to run", f"{found.pending:,}{most}"))
    if found.others:
        rows.append(("others", f"{found.others:,} trials that this study does not ask for are in the folder too"))
    if found.pending:
        check_measured(study)
        rows += [("claims", line) for line in doubts(study)]
        if why := unfit_here(study):
            rows.append(("this machine", f"cannot run it: {why}"))
    if found.pending and (own := own_code(study)) and not consent.may_run():
        rows.append(("time here", f"not timed: that runs {', '.join(own)} of the results folder; with --trust it does"))
    elif found.pending:
        rows += _estimates(study, found)
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    for row in [*rows, ("results", storage.masked(results))]:
        table.add_row(*map(escape, row))
    console.print(table)


def _axis(axis: Axis) -> str:
    """``batch_size: 10 values, 2 to 1000``, or ``lr: 0.01 to 0.3, log``."""
    name = ".".join(axis.path)
    if not isinstance(axis, Values):
        return f"{name}: {axis.low:g} to {axis.high:g}, {'log' if axis.log else 'linear'}"
    shown = [value["name"] if isinstance(value, dict) else value for value in axis.values]
    if len(shown) == 1:
        return f"{name}: {shown[0]}"
    if isinstance(shown[0], str):
        return f"{name}: {len(shown)} values, {', '.join(dict.fromkeys(shown))}"
    return f"{name}: {len(shown)} values, {shown[0]} to {shown[-1]}"


def _estimates(study: Study, found: Survey) -> list[tuple[str, str]]:
    import cluster
    from orchestrator.estimate import estimate

    examples = [found.examples[batch_size] for batch_size in (min(found.examples), max(found.examples))]
    for spec in examples:
        first_step(spec, study)
    check_models(found, study)
    workers = max(1, int(cluster.local_cpus() // study.resources.cpu))
    small, large = examples
    timed = estimate(study, small, large, available=-(-found.pending // len(found.examples)))
    # Where an adaptive design has not said yet what it wants, the rest is taken to be like the part that is known.
    scale = found.pending / found.budgets.total()
    seconds = scale * sum(count * timed.trial_seconds(steps, batch_size, study.measure)
                          for (steps, batch_size), count in found.budgets.items())
    steps = round(scale * sum(count * steps for (steps, _), count in found.budgets.items()))
    how = [f"batch size {spec.batch_size:,}: {choice.words}"
           for spec, choice in zip(examples, timed.packs, strict=True)]
    if len(study.extremes) > 1 and study.lanes != 1:
        how.append("by the first model: others are tried as they run, and the end says which could only run alone")
    total = max(steps for steps, _ in found.budgets)
    often = {what: len(moments(getattr(study.measure, what), total, study.measure.per_decade))
             for what in timed.measuring}
    return [
        ("optimizer steps", f"{steps:,}"),
        ("trained", "\n".join(dict.fromkeys(how))),
        ("time here", f"about {duration(seconds / workers)} on {workers} workers of {study.resources.cpu:g} CPU "
                      f"({timed.step * 1e6:.0f} us a step + {timed.sample * 1e6:.1f} us a sample; timed here); "
                      "Ray's start and the figures come on top"),
        ("measuring", ", ".join(f"{what} {often[what]} x {seconds * 1e3:.0f} ms"
                                for what, seconds in timed.measuring.items()) + " a trial"),
        ("memory", f"about {LIBRARIES + timed.bytes / 2**20:,.0f} MB a worker, its libraries included"),
    ]
