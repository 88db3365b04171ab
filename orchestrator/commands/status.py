"""Show how far a study is: done, still to run, the driver at work on it, and what failed with its reason."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape

from orchestrator.commands import common
from orchestrator.conclude import failures
from orchestrator.folder import Folder
from orchestrator.lease import holder
from orchestrator.run import look

EXAMPLE = "phasesweep status batch_size_phases"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY and overrides."""
    common.add_study(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Print counts, the driver at work, and failures."""
    study, results = common.load(args)
    folder = Folder.open(results)
    found = look(study, folder)
    lines = [(status, f"{number:,}") for status, number in sorted(found.done.items())]
    if found.failed:
        lines.append(("failed", f"{len(found.failed):,}; the next run tries them again"))
    lines += [("to run", f"{found.pending:,} of {found.size:,}"), ("driver", str(holder(folder) or "none at work")),
              ("results", results)]
    for name, text in lines:
        console.print(f"{name:<10} {escape(text)}", highlight=False)
    if found.failed:
        console.print(failures(study, folder, found.failed))
    return 0
