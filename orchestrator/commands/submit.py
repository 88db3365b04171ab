"""Run a study on a Ray cluster that is already up. This process joins it as a driver; the results are written here.

This machine must be one of the cluster's nodes (`ray start --address=HOST:PORT` makes it one). The cluster's token is
taken from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token. phasesweep must be installed on
every node, in the same version; `phasesweep doctor --to HOST:PORT` looks.

Exit status: 0 all trials have a result (a diverged trial is a result), 1 some trials failed, 2 bad input."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from rich.console import Console

from orchestrator.commands import common
from orchestrator.commands.run import run_and_conclude

EXAMPLE = "RAY_AUTH_MODE=token ray start --head --port=6379 && phasesweep submit batch_size_phases --to 127.0.0.1:6379"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, overrides and the target."""
    common.add_study(parser)
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="address of the cluster's head node")


def main(args: argparse.Namespace, console: Console) -> int:
    """Run the study on the cluster."""
    import cluster

    with cluster.existing(args.to) as connection:  # first of all: nothing is written if we are not let in
        return run_and_conclude(args, console, lambda: nullcontext(connection))
