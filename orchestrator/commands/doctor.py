"""Look at what this machine (or, with --to, a cluster) offers for a sweep, and say how to mend what is missing.

Exit status: 0 ready, 2 something is missing."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.console import Console

from orchestrator import nodes
from orchestrator.folder import Folder
from orchestrator.version import VERSION
from trials.errors import UserError
from trials.storage import masked

EXAMPLE = "phasesweep doctor"

ENOUGH_DISK = 1 << 30
MOST_SKEW = 5.0  # seconds
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Finding:
    """One line: ``ok`` or not, what was found, and the fix if there is something to mend."""

    ok: bool
    what: str
    fix: str = ""


def add(parser: argparse.ArgumentParser) -> None:
    """Where to look."""
    parser.add_argument("--to", metavar="TARGET", help="look at this target of `submit` instead")
    parser.add_argument("results", nargs="?", metavar="results=PATH", type=_path, default="results=results",
                        help="where results are to go (default results/)")


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the findings as they come."""
    checks: list[Iterable[Finding]] = [_libraries(), _results(args.results)]
    checks += [_cluster(args.to, args.results)] if args.to else [_machine(), _gpu(), _temporary(), _token(), _ray()]
    good = True
    for finding in chain.from_iterable(checks):
        good &= finding.ok
        line = f"{'ok' if finding.ok else 'fix':<4}{finding.what}" + (f": {finding.fix}" if finding.fix else "")
        console.print(line, style=None if finding.ok else "red", markup=False, highlight=False)
    return 0 if good else 2


def _path(word: str) -> str:
    key, _, path = word.partition("=")
    if key != "results" or not path:
        raise argparse.ArgumentTypeError(f"expected results=PATH, not {word!r}")
    return path


def _libraries() -> Iterator[Finding]:
    yield Finding(True, f"phasesweep {VERSION}, Python {platform.python_version()}, {platform.platform()}")
    here = nodes.needs()
    for name, requirement in here.missing.items():
        yield Finding(False, f"{name} is not installed", f"pip install '{requirement}'")
    for name, requirement in here.old.items():
        yield Finding(False, f"{name} {here.found[name]} is too old", f"pip install --upgrade '{requirement}'")
    yield Finding(True, ", ".join(f"{name} {have}" for name, have in here.found.items()))


def _results(results: str) -> Iterator[Finding]:
    """Without writing anything, not even for a moment."""
    try:
        folder = Folder.open(results)
        if not folder.local:
            folder.list()
            yield Finding(True, f"results go to {folder.shown}, which answers")
            return
    except UserError as error:
        yield Finding(False, str(error))
        return
    there = nodes.nearest(Path(folder.root))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        yield _space(f"results go to {results}", there, "give a folder on another disk with results=PATH")
    else:
        yield Finding(False, f"results cannot go to {results}, as {there} is not a folder you may write to",
                      "make it one, or choose another results=PATH")


def _temporary() -> Iterator[Finding]:
    import cluster

    try:
        folder = cluster.temporary()
    except cluster.ClusterError as error:
        yield Finding(False, str(error))
        return
    yield _space(f"temporary files go to {folder}", folder, "set TMPDIR to a folder on another disk")


def _space(what: str, folder: Path, fix: str) -> Finding:
    free = shutil.disk_usage(folder).free
    enough = free > ENOUGH_DISK
    return Finding(enough, f"{what}: {free / 2**30:.1f} GiB free", "" if enough else fix)


def _machine() -> Iterator[Finding]:
    import cluster

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding(True, f"{cluster.local_cpus()} cores, {memory / 2**30:.0f} GiB of memory")
    if SHARED_MEMORY.is_dir():
        size, need = shutil.disk_usage(SHARED_MEMORY).total, cluster.OBJECT_STORE_BYTES
        slow = "" if size >= need else f", less than {need / 2**20:.0f}: Ray uses the disk instead (docker: --shm-size)"
        yield Finding(True, f"{SHARED_MEMORY} has {size / 2**20:,.0f} MiB{slow}")


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding(True, f"GPU: {names}; device: auto uses it")
    else:
        yield Finding(True, "no GPU that PyTorch can use; device: auto runs on the CPU")


def _token() -> Iterator[Finding]:
    import cluster

    try:
        yield Finding(True, f"`submit` would use {cluster.token_source()}")
    except cluster.ClusterError:
        yield Finding(True, "no token, which only `submit` needs")


def _ray() -> Iterator[Finding]:
    import cluster

    began = time.perf_counter()
    try:
        with cluster.local() as connection:
            yield Finding(True, f"Ray starts in {time.perf_counter() - began:.1f} s with {connection.cpus:g} CPU, "
                                f"{connection.gpus:g} GPU")
    except cluster.ClusterError as error:
        yield Finding(False, str(error))


def _cluster(address: str, results: str) -> Iterator[Finding]:
    import cluster

    try:
        target = cluster.target(address)
        if target is not None:
            place = target.place("NAME", results)
            yield Finding(True, f"results of a study go to {place.results}, {place.how}")
            yield Finding(True, target.look())
            return
        ours = cluster.Bundle.of({})
        with cluster.existing(address, ours) as connection:
            yield Finding(True, f"{address} lets us in with {cluster.token_source()}: "
                                f"{connection.nodes} node(s), {connection.cpus:g} CPU, {connection.gpus:g} GPU")
            found = nodes.ask(results)
            for node in found:
                yield from _node(node, ours.code)
            yield _storage(address, results, found)
    except (cluster.ClusterError, UserError) as error:
        yield Finding(False, str(error))


def _node(node: nodes.Node, code: str) -> Iterator[Finding]:
    wrong, name, said = nodes.unfit(node, code), f"node {node.address}", node.facts
    if wrong or isinstance(said, str):
        yield Finding(False, str(wrong))
        return
    libraries = ", ".join(f"{name} {said.needs.found[name]}" for name in ("torch", "ray") if name in said.needs.found)
    yield Finding(True, f"{name} ({said.host}) has {node.cpus:g} CPU, {node.gpus:g} GPU, Python {said.python}, "
                        f"{libraries}, and our code")
    if node.gpus:
        yield Finding(bool(said.gpus), f"{name} GPU: {', '.join(said.gpus) or 'none that PyTorch can use'}",
                      "" if said.gpus else "install a PyTorch for its CUDA there, or run with device=cpu")
    skewed = abs(node.skew) > MOST_SKEW + node.skew_error
    yield Finding(not skewed, f"{name} clock: {node.skew:+.2f} s to ours, within {node.skew_error:.2f}",
                  "set it (NTP); finished_at is told by it" if skewed else "")


def _storage(address: str, results: str, found: list[nodes.Node]) -> Finding:
    """Which of the three ways the rows and the checkpoints take, and how fast storage is."""
    facts = [node.facts for node in found if isinstance(node.facts, nodes.Facts)]
    reads, writes = [fact.reads for fact in facts if fact.reads], [fact.writes for fact in facts if fact.writes]
    rows = f"rows travel through Ray to this process, which writes them to {masked(results)}"
    if facts and len(reads) == len(writes) == len(facts):
        return Finding(True, f"{rows}; every node sees it ({min(reads):,.0f} MiB/s read, {min(writes):,.0f} written at "
                             "least), so long trials keep checkpoints there and go on after a loss")
    unseen = f"{len(facts) - min(len(reads), len(writes))} of {len(facts)} nodes do not see it"
    if address.startswith("ray://"):
        return Finding(True, f"{rows}; {unseen}, so a trial that is lost there begins anew; results=URI changes that")
    return Finding(True, f"{rows}; {unseen}, so this node reads and writes their checkpoints too")
