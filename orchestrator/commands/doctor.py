"""Look at what this machine (or, with --to, a cluster) offers for a sweep, and say how to mend what is missing.

Exit status: 0 ready, 2 something is missing."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path

from rich.console import Console

from orchestrator.folder import Folder
from orchestrator.version import VERSION
from trials.errors import UserError

EXAMPLE = "phasesweep doctor"

ENOUGH_DISK = 1 << 30
NODE_SECONDS = 60.0
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Finding:
    """One line: ``ok`` or not, what was found, and the fix if there is something to mend."""

    ok: bool
    what: str
    fix: str = ""


def add(parser: argparse.ArgumentParser) -> None:
    """Where to look."""
    parser.add_argument("--to", metavar="HOST:PORT", help="look at the Ray cluster with this head instead")
    parser.add_argument("results", nargs="?", metavar="results=PATH", type=_path, default="results=results",
                        help="where results are to go (default results/)")


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the findings as they come."""
    checks: list[Iterable[Finding]] = [_libraries(), _results(args.results)]
    checks += [_cluster(args.to)] if args.to else [_machine(), _gpu(), _temporary(), _token(), _ray()]
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
    found = []
    for requirement in requires("phasesweep") or []:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement)
        if match is None:  # of an extra
            continue
        name, least = match.groups()
        try:
            have = version(name)
        except PackageNotFoundError:
            yield Finding(False, f"{name} is not installed", f"pip install '{requirement}'")
            continue
        found.append(f"{name} {have}")
        if _numbers(have) < _numbers(least):
            yield Finding(False, f"{name} {have} is too old", f"pip install --upgrade '{requirement}'")
    yield Finding(True, ", ".join(found))


def _numbers(dotted: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", dotted)]


def _results(results: str) -> Iterator[Finding]:
    """Without writing anything, not even for a moment."""
    try:
        folder = Folder.open(results)
        if not folder.local:
            folder.list()
            yield Finding(True, f"results go to {results}, which answers")
            return
    except UserError as error:
        yield Finding(False, str(error))
        return
    there = _existing(Path(folder.root))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        yield _space(f"results go to {results}", there, "give a folder on another disk with results=PATH")
    else:
        yield Finding(False, f"results cannot go to {results}, as {there} is not a folder you may write to",
                      "make it one, or choose another results=PATH")


def _temporary() -> Iterator[Finding]:
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    yield _space(f"temporary files go to {folder}", _existing(Path(folder)), "set TMPDIR to a folder on another disk")


def _space(what: str, folder: Path, fix: str) -> Finding:
    free = shutil.disk_usage(folder).free
    enough = free > ENOUGH_DISK
    return Finding(enough, f"{what}: {free / 2**30:.1f} GiB free", "" if enough else fix)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))


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
        writable = os.access(Path.home(), os.W_OK | os.X_OK)
        yield Finding(writable, "no token, which only `submit` needs" if writable else
                      "no token, and Ray cannot make itself one in ~/.ray", "" if writable else "set RAY_AUTH_TOKEN")


def _ray() -> Iterator[Finding]:
    import cluster

    began = time.perf_counter()
    try:
        with cluster.local() as connection:
            yield Finding(True, f"Ray starts in {time.perf_counter() - began:.1f} s with {connection.cpus:g} CPU, "
                                f"{connection.gpus:g} GPU")
    except cluster.ClusterError as error:
        yield Finding(False, str(error))


def _cluster(address: str) -> Iterator[Finding]:
    import cluster

    try:
        with cluster.existing(address) as connection:
            yield Finding(True, f"{address} lets us in with {cluster.token_source()}: "
                                f"{connection.nodes} node(s), {connection.cpus:g} CPU, {connection.gpus:g} GPU")
            yield from _nodes()
    except cluster.ClusterError as error:
        yield Finding(False, str(error))


def _nodes() -> Iterator[Finding]:
    """Ask each node what is installed there: it must be what is installed here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    ask = ray.remote(num_cpus=0, max_retries=0)(_installed)
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    answers = [ask.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote() for node in nodes]
    here, until = _installed(), time.monotonic() + NODE_SECONDS
    for node, answer in zip(nodes, answers, strict=True):
        name = f"node {node['NodeManagerAddress']}"
        try:
            there = ray.get(answer, timeout=max(0.0, until - time.monotonic()))
        except ray.exceptions.RayError as error:
            yield Finding(False, f"{name}: {str(error).strip().splitlines()[-1]}",
                          f"install {here} for the Python that Ray runs there")
            continue
        yield Finding(there == here, f"{name} has {there}", "" if there == here else f"install {here} there, as here")


def _installed() -> str:
    return f"phasesweep {VERSION}, torch {version('torch')}"
