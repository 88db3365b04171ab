"""Show how far a study is: done, running, still to run, and what failed with its reason."""

from __future__ import annotations

import argparse
from collections import Counter

from rich.console import Console
from rich.table import Table

from orchestrator.commands import common
from orchestrator.folder import Folder
from orchestrator.lease import holder
from orchestrator.run import Observed
from orchestrator.store import committed, read_trials
from orchestrator.survey import survey

HELP = "done, running, failed with reasons"
EXAMPLE = "phasesweep status batch_size_phases"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY and overrides."""
    common.add_study(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Print counts, the driver at work, and failures."""
    study, results = common.load(args)
    folder = Folder.open(results)
    statuses = committed(folder)
    found = survey(study, statuses, Observed(folder, statuses))
    for status, number in sorted(found.done.items()):
        console.print(f"{status:<10} {number:,}", highlight=False)
    console.print(f"{'to run':<10} {found.pending:,} of {found.size:,}", highlight=False)
    driver = holder(folder)
    console.print(f"{'driver':<10} {driver or 'none at work'}", highlight=False)
    if found.failed:
        rows = read_trials(folder, ["trial_id", "status", "reason"]).to_pylist()
        failures = set(found.failed)
        reasons = Counter(row["reason"] for row in rows if row["trial_id"] in failures)
        table = Table("trials", "failed because", show_edge=False)
        for reason, number in reasons.most_common(20):
            table.add_row(str(number), str(reason).replace("[", r"\["))
        console.print(table)
    return 0
