"""Stop a sweep that was handed over with `submit`: it saves what is in training, commits what is done, and ends. The
same `submit` continues it."""

from __future__ import annotations

import argparse

from rich.console import Console

from orchestrator.commands import common
from orchestrator.receipt import needed

EXAMPLE = "phasesweep cancel batch_size_phases"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY and overrides."""
    common.add_study(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Ask the target to stop it."""
    receipt = needed(common.results_folder(args))
    receipt.target.cancel(receipt.number)
    console.print(f"{receipt.number} on {receipt.to}: {receipt.target.state(receipt.number).value}", highlight=False)
    return 0
