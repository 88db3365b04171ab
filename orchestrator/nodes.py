"""What each node of a cluster has, as it says itself: whether trials can run there, with our code and libraries that
are new enough, its GPUs, its clock, and whether it sees the results folder and how fast."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trials.errors import UserError, describe

if TYPE_CHECKING:
    from orchestrator.folder import Folder

ANSWER_SECONDS = 60.0
PROBE_BYTES = 4 << 20  # written and read to see how fast storage is


@dataclass(frozen=True)
class Needs:
    """Our requirements here, by name: the version of each that is ``found``; what pip installs for each that is
    ``missing`` or too ``old``."""

    found: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    old: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a node says of itself. ``reason`` is why no trial can run there; ``reads`` and ``writes`` are MiB/s of the
    results folder, None where the node does not see it."""

    host: str
    python: str
    needs: Needs
    code: str
    reason: str
    gpus: list[str]
    reads: float | None = None
    writes: float | None = None


@dataclass(frozen=True)
class Node:
    """A node as the cluster knows it, and what it says; ``facts`` is a line of text where it gave no answer.
    ``skew`` is how many seconds its clock is ahead of ours, to within ``skew_error``."""

    address: str
    cpus: float
    gpus: float
    facts: Facts | str
    skew: float = 0.0
    skew_error: float = 0.0


def needs() -> Needs:
    """Compare what is installed with what our distribution requires."""
    result = Needs()
    for requirement in requires("phasesweep") or []:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement)
        if match is None:  # of an extra
            continue
        name, least = match.groups()
        try:
            result.found[name] = version(name)
        except PackageNotFoundError:
            result.missing[name] = requirement
            continue
        if _numbers(result.found[name]) < _numbers(least):
            result.old[name] = requirement
    return result


def ask(results: str | None = None) -> list[Node]:
    """Ask all nodes of the cluster that this process is connected to. With ``results``, a path or URI, each also tries
    to read there what this process writes, and to write; all of that is removed again."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    def on(function: Any, node: Mapping[str, Any]) -> Any:
        return ray.remote(num_cpus=0, max_retries=0)(function).options(
            scheduling_strategy=On(node["NodeID"], soft=False))

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    with _probe(results) as probe:
        answers = [on(facts, node).remote(probe, node["Resources"].get("GPU", 0.0)) for node in nodes]
        until, found = time.monotonic() + ANSWER_SECONDS, []
        for node, answer in zip(nodes, answers, strict=True):
            what = node["NodeManagerAddress"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)
            try:
                said = ray.get(answer, timeout=max(0.0, until - time.monotonic()))
                found.append(Node(*what, said, *_skew(on(clock, node))))
            except ray.exceptions.RayError as error:
                found.append(Node(*what, str(error).strip().splitlines()[-1]))
    return found


def unfit(node: Node, code: str) -> str | None:
    """Why no trial can run on a node that was sent ``code``, with the fix, in one line; None if it can."""
    facts, name = node.facts, f"node {node.address}"
    if isinstance(facts, str):
        return f"{name} does not answer: {facts}"
    if facts.reason:
        lacks = " ".join(f"'{need}'" for need in facts.needs.missing.values()) or "what is missing"
        return f"{name} (Python {facts.python}) cannot run trials: {facts.reason}; pip install {lacks} there"
    if facts.needs.old:
        old = " ".join(f"'{need}'" for need in facts.needs.old.values())
        return f"{name} has libraries that are too old; pip install --upgrade {old} there"
    if facts.code != code:
        return f"{name} runs another phasesweep than this one, though ours was sent; is there one on its PYTHONPATH?"
    return None


def facts(probe: tuple[str, str] | None, gpus: float) -> Facts:
    """Called on the node. ``probe`` is a folder and a file's name in it that the asking process has written."""
    from cluster import Bundle

    reason, names = "", []
    try:
        importlib.import_module("orchestrator.worker")
        if gpus:
            import torch

            names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    except Exception as error:
        reason = describe(error)
    speeds = _speeds(*probe) if probe and not reason else (None, None)
    return Facts(platform.node(), platform.python_version(), needs(), Bundle.of({}).code, reason, names, *speeds)


def _speeds(where: str, name: str) -> tuple[float | None, float | None]:
    from orchestrator.folder import Folder

    mebibytes, mine = PROBE_BYTES / 2**20, f"{name}-{uuid.uuid4().hex[:8]}"
    try:
        folder, began = Folder.open(where), time.perf_counter()
        content, read = folder.read(name), time.perf_counter()
    except (UserError, OSError):
        return None, None
    try:
        folder.write(mine, content)
        return mebibytes / (read - began), mebibytes / (time.perf_counter() - read)
    except UserError:
        return mebibytes / (read - began), None
    finally:
        with contextlib.suppress(UserError):
            folder.delete(mine)


@contextlib.contextmanager
def _probe(results: str | None) -> Iterator[tuple[str, str] | None]:
    """A file in the results folder, or in the nearest folder above it that is there."""
    if results is None:
        yield None
        return
    from orchestrator.folder import Folder

    folder: Folder = Folder.open(results)
    if folder.local:
        folder = Folder.open(nearest(Path(folder.root)))
    name = f".phasesweep-probe-{uuid.uuid4().hex[:8]}"
    folder.write(name, os.urandom(PROBE_BYTES))
    try:
        yield folder.root if folder.local else results, name
    finally:
        folder.delete(name)


def nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))


def clock() -> float:
    """Called on the node: seconds since the epoch."""
    return time.time()


def _skew(there: Any) -> tuple[float, float]:
    """Seconds that a node's clock is ahead of ours, and how sure that is."""
    import ray

    began = time.time()
    there, ended = ray.get(there.remote()), time.time()
    return there - (began + ended) / 2, (ended - began) / 2


def _numbers(dotted: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", dotted)]
