"""Show how far a study is: done, still to run, the driver at work on it, and what failed with its reason."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape

from cluster import ClusterError
from orchestrator import receipt
from orchestrator.commands import common
from orchestrator.conclude import failures
from orchestrator.folder import Folder
from orchestrator.lease import holder
from orchestrator.provenance import kept_studies
from orchestrator.run import look

EXAMPLE = "phasesweep status batch_size_phases"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, overrides and --trust."""
    common.add_study(parser)
    common.add_trust(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Print counts, the driver at work, and failures."""
    with common.looking(args) as (study, results):
        folder = Folder.open(results)
        found = look(study, folder)
    handed = receipt.load(results)
    lines = [(status, f"{number:,}") for status, number in sorted(found.done.items())]
    if found.failed:
        lines.append(("failed", f"{len(found.failed):,}; the next run tries them again"))
    lines += [("to run", f"{found.pending:,} of {found.size:,}"), ("driver", str(holder(folder) or "none at work"))]
    if found.others:
        kept = kept_studies(folder)
        of = f"; {', '.join(kept)} describe{'s' * (len(kept) == 1)} what was run before" if kept else ""
        lines.append(("others", f"{found.others:,} trials that this study does not ask for are in the folder too{of}"))
    if handed is not None:
        lines.append(("job", f"{handed.number} on {handed.to}: {_state(handed)}"))
        if handed.fetched:
            lines.append(("", f"counted is what is here; phasesweep fetch brings more from {handed.results}"))
    lines.append(("results", folder.shown))
    for name, text in lines:
        console.print(f"{name:<10} {escape(text)}", highlight=False)
    if found.failed:
        console.print(failures(study, folder, found.failed))
    return 0


def _state(handed: receipt.Receipt) -> str:
    """As the target says; where it says nothing, why: what is here can be shown all the same."""
    try:
        target = handed.target
        state, why = target.state(handed.number), target.why(handed.number)
        return f"{state.value}{why and f', {why}'}"
    except ClusterError as error:
        return str(error)
