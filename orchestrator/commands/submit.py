"""Run a study on a Ray cluster that is already up. This process joins it as a driver; the results are written here.

The cluster's token is taken from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token. phasesweep
must be installed on every node, in the same version."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.commands import common
from orchestrator.commands.run import run_and_conclude

if TYPE_CHECKING:
    from cluster import Connection

HELP = "run a study on a Ray cluster that is up"
EXAMPLE = "RAY_AUTH_MODE=token ray start --head --port=6379 && phasesweep submit batch_size_phases --to 127.0.0.1:6379"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, overrides and the target."""
    common.add_study(parser)
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="address of the cluster's head node")


def main(args: argparse.Namespace, console: Console) -> int:
    """Run the study on the cluster."""
    def there() -> AbstractContextManager[Connection]:
        import cluster

        return cluster.existing(args.to)
    return run_and_conclude(args, console, there)
