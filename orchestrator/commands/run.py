"""Run a study on this machine, or continue it: trials that are already in the results are not run again.

Exit status: 0 all trials have a result (a diverged trial is a result), 1 some trials failed, 2 bad input."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.beforehand import unfit_here
from orchestrator.commands import common
from orchestrator.conclude import conclude
from orchestrator.run import Connect, run
from search_spaces import Study
from trials.errors import UserError

if TYPE_CHECKING:
    from cluster import Connection

EXAMPLE = "phasesweep run batch_size_phases space.seed.replicates=5 results=/tmp/phases"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY and overrides."""
    common.add_study(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Run the study under a local Ray."""
    study, results = common.load(args)

    def here() -> AbstractContextManager[Connection]:
        import cluster

        if why := unfit_here(study):
            raise UserError(why)
        return cluster.local()
    return run_and_conclude(study, results, console, here, common.into(args))


def run_and_conclude(study: Study, results: str, console: Console, connect: Connect, into: bool = False) -> int:
    """Run, then show what came out; returns the exit status. ``into`` allows the results folder of another study."""
    outcome = run(study, results, connect, console, into)
    return conclude(study, results, outcome, console)
