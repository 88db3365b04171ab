"""Bring the results of a sweep that was handed over with `submit` here: whole trials, as far as it is; once more brings
only what is new."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from orchestrator.commands import common
from orchestrator.folder import Folder
from orchestrator.receipt import Receipt, needed
from trials import storage

EXAMPLE = "phasesweep fetch batch_size_phases"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY and overrides."""
    common.add_study(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Copy what is not here yet."""
    results = common.results_folder(args)
    bring(needed(results), results, console)
    return 0


def bring(receipt: Receipt, results: str, console: Console) -> None:
    """Copy what is not here yet; say where it is if there is nothing to copy."""
    if not receipt.fetched:
        console.print(f"results  {receipt.results}: written there by the sweep, nothing to bring", highlight=False)
        return
    shown = storage.masked(results)
    came = receipt.target.fetch(receipt.number, receipt.results, Path(Folder.open(results).root))
    console.print(f"results  {shown}: {came / 2**20:.1f} MiB came from {receipt.results}", highlight=False)
