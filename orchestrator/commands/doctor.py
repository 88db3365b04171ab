"""Look at what this machine (or, with --to, a cluster) offers for a sweep, and say how to mend what is missing.

Exit status: 0 ready, 2 something is missing."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from rich.console import Console

from orchestrator.folder import Folder
from orchestrator.version import VERSION
from trials.errors import UserError

HELP = "what this machine or cluster offers, and what is missing"
EXAMPLE = "phasesweep doctor"

ENOUGH_DISK = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One line: ``ok`` or not, what was found, and the fix if there is something to mend."""

    ok: bool
    what: str
    fix: str = ""


def add(parser: argparse.ArgumentParser) -> None:
    """Where to look."""
    parser.add_argument("--to", metavar="HOST:PORT", help="look at the Ray cluster with this head instead")
    parser.add_argument("overrides", nargs="*", metavar="results=PATH", help="also try to write there")


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the findings."""
    results = next((word.removeprefix("results=") for word in args.overrides), "results")
    good = True
    for check in (_libraries, _processor, _gpu, lambda: _disk(results), lambda: _ray(args.to)):
        for finding in check():
            good &= finding.ok
            mark = "[green]ok  [/]" if finding.ok else "[red]fix [/]"
            console.print(mark + finding.what.replace("[", r"\["), highlight=False)
            if finding.fix:
                console.print("    " + finding.fix.replace("[", r"\["), highlight=False)
    return 0 if good else 2


def _libraries() -> Iterator[Finding]:
    yield Finding(True, f"phasesweep {VERSION}, Python {platform.python_version()}, {platform.platform()}")
    for requirement in requires("phasesweep") or []:
        if "extra ==" in requirement:
            continue
        name = requirement.split(">")[0].split("[")[0].strip()
        try:
            yield Finding(True, f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding(False, f"{name} is not installed", f"pip install '{requirement}'")


def _processor() -> Iterator[Finding]:
    import cluster

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    yield Finding(True, f"{cluster.local_cpus()} cores, {memory / 2**30:.0f} GiB of memory")


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding(True, f"GPU: {names}; device: auto uses it")
    else:
        yield Finding(True, "no GPU that PyTorch can use; device: auto runs on the CPU")


def _disk(results: str) -> Iterator[Finding]:
    trial = Path(results) / f".doctor-{os.getpid()}"
    made = [parent for parent in (trial, *trial.parents) if not parent.exists()]
    try:
        folder = Folder.open(str(trial))
        folder.write("probe", b"x")
        folder.delete("probe")
    except UserError as error:
        yield Finding(False, f"results cannot be written: {error}")
        return
    finally:
        for parent in made:  # leave nothing behind, not even an empty folder
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
    free = shutil.disk_usage(Path(results) if Path(results).exists() else Path.cwd()).free
    yield Finding(free > ENOUGH_DISK, f"results go to {results}: writable, {free / 2**30:.1f} GiB free",
                  "" if free > ENOUGH_DISK else "give a folder on another disk with results=PATH")


def _ray(address: str | None) -> Iterator[Finding]:
    import cluster

    connect: Callable[[], object] = cluster.local if address is None else lambda: cluster.existing(address)
    began = time.perf_counter()
    try:
        with connect() as connection:  # type: ignore[attr-defined]
            yield Finding(True, f"Ray answers on {connection.target} after {time.perf_counter() - began:.1f} s: "
                                f"{connection.nodes} node(s), {connection.cpus:g} CPU, {connection.gpus:g} GPU")
    except cluster.ClusterError as error:
        yield Finding(False, f"Ray: {error}")
