"""How many trials to train side by side: the number of lanes at which a step costs each trial the least, by timing.

A few steps of the real trials are timed, alone and in packs of growing size, once for each structure of trials and
each machine; the answers are kept in the user's cache folder. Where packing does not pay (wide layers on a CPU) the
answer is 1; where it cannot be done (a user's model that vmap cannot follow) also, with the reason. That is not kept:
memory that ran out may be there the next time, and a model may be mended in a file beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from orchestrator.version import VERSION
from trials import usercode
from trials.guest import guest
from trials.packs.lanes import Lanes
from trials.packs.structure import structure
from trials.packs.unfit import lasting, out_of_memory, reason
from trials.setup import prepare
from trials.spec import TrialSpec
from trials.trainer import Alone

FIRST = 32  # lanes tried first
MOST = {"cpu": 256, "cuda": 1024}
GAIN = 0.95  # twice the lanes must take less than this per lane to be worth it
SECONDS = 0.03  # each number of lanes is timed for so long

_unfit: dict[str, Choice] = {}  # what cannot be packed, for as long as this process lives


@dataclass(frozen=True)
class Choice:
    """``lanes`` to train side by side, 1 for alone; seconds a step takes a trial by itself, and in packs, by their
    lanes; ``reason`` where it cannot be packed."""

    lanes: int
    alone: float
    packed: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Of a step and trial, as chosen."""
        return self.packed.get(str(self.lanes), self.alone)

    @property
    def words(self) -> str:
        """What was chosen, and why."""
        if self.reason:
            return f"one by one: {self.reason}"
        if self.lanes == 1:
            return f"one by one (a step takes {self.alone * 1e6:.0f} us; in a pack no less)"
        return f"{self.lanes} side by side ({self.seconds * 1e6:.0f} us a step and trial; alone {self.alone * 1e6:.0f})"


def choose(spec: TrialSpec, device: str, available: int, wanted: int = 0) -> Choice:
    """The best number of lanes for trials like ``spec`` on ``device``, of which ``available`` are to be trained; or
    ``wanted`` of them, timed, where that is not 0."""
    with guest(spec.seed, "timing", device):
        return _choose(spec, device, available, wanted)


def _choose(spec: TrialSpec, device: str, available: int, wanted: int) -> Choice:
    if wanted:
        return _as_wanted(spec, device, min(wanted, available))
    if available < 2:
        return Choice(1, _alone(spec, device))
    path = _folder() / f"{_key(spec, device)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Choice(**json.loads(path.read_text()))
    if (known := _unfit.get(path.name)) is not None:
        return known
    choice, exhausted = _time(spec, device, available)
    if exhausted and choice.reason:
        _unfit[path.name] = choice
    elif exhausted:  # not where fewer were there to be tried than might be best
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path.with_name(f"{path.name}.{os.getpid()}")
            whole.write_text(json.dumps(asdict(choice)))
            whole.replace(path)
    return choice


def _as_wanted(spec: TrialSpec, device: str, lanes: int) -> Choice:
    alone = _alone(spec, device)
    if lanes == 1:
        return Choice(1, alone)
    try:
        return Choice(lanes, alone, {str(lanes): _packed(spec, device, lanes)})
    except Exception as error:
        return Choice(1, alone, reason=reason(error))


def _time(spec: TrialSpec, device: str, available: int) -> tuple[Choice, bool]:
    """The choice, and whether more lanes would not have changed it."""
    alone = _alone(spec, device)
    packed: dict[str, float] = {}
    lanes, best = min(FIRST, available), 1
    while lanes <= MOST[device]:
        try:
            seconds = _packed(spec, device, lanes)
        except Exception as error:
            if best > 1:
                return Choice(best, alone, packed), False
            if out_of_memory(error) and lanes > 2:  # others may use it too: the next time there may be more
                lanes //= 2
                continue
            return Choice(1, alone, reason=reason(error)), lasting(error)
        packed[str(lanes)] = seconds
        if seconds > GAIN * packed.get(str(best), alone):
            return Choice(best, alone, packed), lanes >= FIRST
        best, lanes = lanes, 2 * lanes
        if lanes > available:
            return Choice(best, alone, packed), lanes > MOST[device]
    return Choice(best, alone, packed), True


def _alone(spec: TrialSpec, device: str) -> float:
    """Seconds of a step of a trial by itself."""
    return _seconds(Alone(prepare(_endless(spec), device)).take, device)


def _packed(spec: TrialSpec, device: str, lanes: int) -> float:
    """Seconds of a step and trial in a pack."""
    first = prepare(_endless(spec), device)
    others = [prepare(replace(first.spec, seed=spec.seed + number), device, first) for number in range(1, lanes)]
    return _seconds(Lanes([first, *others]).step, device) / lanes


def _endless(spec: TrialSpec) -> TrialSpec:
    return replace(spec, budget={"steps": 2**40, "epochs": 0.0, "stop_train_loss": 0.0})


def _seconds(step: Callable[[], object], device: str) -> float:
    """Least time of a step after two that warm up."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[2:])


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "phasesweep" / "lanes"


def _key(spec: TrialSpec, device: str) -> str:
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} {_cpu()}"
    code = usercode.fingerprint([spec.task["name"], spec.model["name"]])
    parts = [structure(spec), device, machine, torch.get_num_threads(), torch.__version__, VERSION, code]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=10).hexdigest()


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
