"""What Slurm's partitions offer, as ``sinfo`` says, and whether a request fits."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cluster.commands import run
from cluster.errors import ClusterError

MOST_CPUS, MOST_MINUTES = 8, 240  # asked for where nothing is said: large nodes are not taken whole by accident
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 ** 2}
_FORMAT = "%P|%a|%l|%D|%c|%m|%G|%f"


@dataclass(frozen=True)
class Offer:
    """``nodes`` like nodes of a ``partition``: each with ``cpus``, ``memory`` in MiB (1 where the site does not say),
    ``gpus`` by type and ``features``. ``minutes`` a job may take, None for any time."""

    partition: str
    default: bool
    up: bool
    minutes: float | None
    nodes: int
    cpus: int
    memory: int
    gpus: Counter[str]
    features: frozenset[str]

    def __str__(self) -> str:
        gpus = "".join(f", {count} GPU{'s' * (count > 1)}{kind and f' ({kind})'}" for kind, count in self.gpus.items())
        memory = f", {self.memory / 1024:.0f}G" if self.memory > 1 else ""
        return f"{self.nodes} node{'s' * (self.nodes > 1)} with {self.cpus} CPUs{memory}{gpus}"


@dataclass(frozen=True)
class Request:
    """What each of ``nodes`` nodes is to have, by the options of the target."""

    partition: str
    nodes: int
    cpus: int
    memory: str
    gpus: int
    gpu_type: str
    constraint: str
    time: str


def offers() -> list[Offer]:
    """Of all partitions; none where ``sinfo`` is not here, or does not answer: sbatch says then what is wrong."""
    found: list[Offer] = []
    if shutil.which("sinfo") is None:
        return found
    try:
        said = run("sinfo", "--noheader", "--exact", f"--format={_FORMAT}").decode(errors="replace")
    except ClusterError:
        return found
    for line in said.splitlines():
        words = line.strip().split("|")
        if len(words) != 8 or not words[3].isdecimal():
            continue
        name, up, limit, nodes, cpus, memory, gres, features = words
        found.append(Offer(name.rstrip("*"), name.endswith("*"), up == "up", minutes(limit), int(nodes), _count(cpus),
                           _count(memory), _gpus(gres), frozenset(features.split(","))))
    return found


def asked(found: Sequence[Offer], partition: str) -> list[Offer]:
    """Those of the partitions that a request names, or of the default one."""
    names = partition.split(",") if partition else [offer.partition for offer in found if offer.default]
    return [offer for offer in found if offer.partition in names]


def defaults(found: Sequence[Offer], nodes: int) -> tuple[int, str]:
    """CPUs of each of so many nodes, and time, where nothing is said: the most that is offered, or ours if that is
    less."""
    cpus = [offer.cpus for offer in found for _ in range(min(offer.nodes, nodes))]
    times = [offer.minutes for offer in found]
    limit = MOST_MINUTES if None in times else min(MOST_MINUTES, max(filter(None, times), default=MOST_MINUTES))
    return min([MOST_CPUS, *sorted(cpus, reverse=True)[:nodes]]), _clock(limit)


def refuse(request: Request, found: Sequence[Offer]) -> None:
    """Raise ClusterError, with the option that mends it, for a request that no partition it names can ever give."""
    there = asked(found, request.partition)
    if request.partition and not there:
        names = ", ".join(dict.fromkeys(offer.partition for offer in found))
        raise ClusterError(f"--with partition={request.partition}: there is no such partition; there is: {names}")
    if not there:  # no default, or one without nodes: sbatch knows more
        return
    left = list(there)
    for option, value, fits in _needs(request):
        left, before = [offer for offer in left if fits(offer)], left
        if not left:
            raise ClusterError(f"--with {option}={value}: {_named(request)} cannot give that; "
                               f"it has {'; '.join(map(str, before))}{_elsewhere(request, found)}")
    if sum(offer.nodes for offer in left) < request.nodes:
        raise ClusterError(f"--with nodes={request.nodes}: {_named(request)} has not so many nodes like that; "
                           f"it has {'; '.join(map(str, left))}{_elsewhere(request, found)}")
    if not any(offer.up for offer in left):
        raise ClusterError(f"{_named(request)} is down{_elsewhere(request, found) or '; try again later'}")
    time, limits = minutes(request.time), [offer.minutes for offer in left]
    if time is not None and all(limit is not None and limit < time for limit in limits):
        most = max(limit for limit in limits if limit is not None)
        raise ClusterError(f"--with time={request.time}: {_named(request)} gives a job at most {_clock(most)}"
                           f"{_elsewhere(request, found)}")


def minutes(text: str) -> float | None:
    """Of a time as Slurm writes it: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None for no limit."""
    if re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text) is None:
        return None
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, whole, seconds = (*parts, 0, 0)[:3]
        return int(days) * 1440 + hours * 60 + whole + seconds / 60
    hours, whole, seconds = {1: (0, parts[0], 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return hours * 60 + whole + seconds / 60


def _needs(request: Request) -> Iterator[tuple[str, object, Callable[[Offer], bool]]]:
    """Each thing that is asked of a node: the option, its value, and whether a node has it."""
    yield "cpus", request.cpus, lambda offer: offer.cpus >= request.cpus
    if request.memory:
        number, unit = re.fullmatch(r"(\d+)([KMGT]?)", request.memory).groups()  # type: ignore[union-attr]
        memory = int(number) * _UNITS[unit or "M"]
        yield "memory", request.memory, lambda offer: offer.memory <= 1 or offer.memory >= memory
    if request.gpu_type:
        yield "gpu_type", request.gpu_type, lambda offer: offer.gpus[request.gpu_type] > 0
    if request.gpus:
        yield ("gpus", request.gpus, lambda offer: request.gpus <= (
            offer.gpus[request.gpu_type] if request.gpu_type else offer.gpus.total()))
    if re.fullmatch(r"[\w.-]+", request.constraint):  # an expression is for Slurm to read
        yield "constraint", request.constraint, lambda offer: request.constraint in offer.features


def _named(request: Request) -> str:
    return f"partition {request.partition}" if request.partition else "the default partition"


def _elsewhere(request: Request, found: Sequence[Offer]) -> str:
    """The partitions that could."""
    time = minutes(request.time) or 0.0
    able = Counter({offer.partition: 0 for offer in found})
    for offer in found:
        long = offer.minutes is None or time <= offer.minutes
        if offer.up and long and all(fits(offer) for *_, fits in _needs(request)):
            able[offer.partition] += offer.nodes
    names = [name for name, nodes in able.items() if nodes >= request.nodes]
    return f"; --with partition={names[0]} can" if names else ""


def _gpus(gres: str) -> Counter[str]:
    """``gpu:a100:4(S:0-1),gpu:2`` by type, "" where none is said."""
    found: Counter[str] = Counter()
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *words = item.split(":")
        if name == "gpu":
            count = int(words.pop()) if words and words[-1].isdecimal() else 1
            found[words[0] if words else ""] += count
    return found


def _count(text: str) -> int:
    return int(match[0]) if (match := re.match(r"\d+", text)) else 0


def _clock(total: float) -> str:
    return f"{int(total // 60):02d}:{int(total % 60):02d}:{round(total * 60) % 60:02d}"
