"""What is still to be run, in packs: the design minus what is committed, plus what came back unfinished."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field

from trials.spec import TrialSpec

Work = Callable[[TrialSpec], float]  # how much work a trial is, in a unit of its own
Structure = Callable[[TrialSpec], str]  # equal for trials that may be trained side by side

WINDOW = 4096  # trials looked at ahead of the workers; among these the longest start first
PACK_SECONDS = 2.0  # a pack should keep a worker busy this long: Ray Tune spends about 30 ms on each
LEAST_SECONDS = 0.5  # shorter packs, as far as has been timed, are not worth sharing out
FIRST_GUESS = 2e-5  # seconds a unit of work, before any has been timed
PER_TRIAL = 0.001  # seconds a trial costs beside its steps
LANES = {"cpu": 64, "cuda": 1024}  # trials a pack holds at least, where the worker is to find out how many are best
LEAST_LANES = 16  # fewer trials side by side gain little


@dataclass(order=True)
class _Waiting:
    priority: float
    order: int
    spec: TrialSpec = field(compare=False)
    attempts: int = field(compare=False, default=0)
    alone: bool = field(compare=False, default=False)


@dataclass(repr=False)
class Pack:
    """Some trials for one worker on ``device``. ``attempts`` says how often each has been begun before, by id;
    ``again`` is a pack of trials that this queue has handed out before."""

    number: int
    specs: dict[str, TrialSpec]
    attempts: dict[str, int]
    device: str = "cpu"
    again: bool = False

    def __repr__(self) -> str:  # Ray Tune makes file names of it
        return f"pack{self.number}"

    def __deepcopy__(self, memo: object) -> Pack:  # Ray Tune copies configurations for every trial
        return self


class Queue:
    """Hands out packs until the design is exhausted and every trial has come back.

    ``stream`` yields trials, or None where an adaptive design waits for results. ``committed`` ids are left out; so
    is a trial that the stream repeats. ``workers`` says how many packs run at once on each device, and may change at
    any time. Trials of one ``structure`` go together, at least ``lanes`` of them while there are so many (1: trials
    are trained one by one; 0: as many as the device wants).
    """

    def __init__(self, stream: Iterator[TrialSpec | None], committed: Container[str], work: Work,
                 workers: Mapping[str, int], structure: Structure, lanes: int) -> None:
        self._stream, self._committed, self._work, self._workers = stream, committed, work, workers
        self._structure, self._lanes = structure, lanes
        self._waiting: dict[str, list[_Waiting]] = {}  # heaps, by structure
        self._count = 0  # of all that wait
        self._seen: set[str] = set()  # what was taken from the stream and is not committed, as of a while ago
        self._seen_most = WINDOW
        self._running: dict[int, Pack] = {}
        self._missing: dict[int, set[str]] = {}
        self._exhausted = False
        self._alone: defaultdict[str, Counter[str]] = defaultdict(Counter)  # trained so, by structure and reason
        self._numbers = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)  # that workers spent, by device, on this work
        self._timed: defaultdict[str, float] = defaultdict(float)

    @property
    def finished(self) -> bool:
        """Whether nothing is waiting, running or yet to come."""
        if not self._count and not self._running:
            self._fill()
        return self._exhausted and not self._count and not self._running

    @property
    def work_done(self) -> float:
        """Of the trials that have come back."""
        return sum(self._timed.values())

    @property
    def alone(self) -> Counter[str]:
        """Trials trained by themselves, by the reason why their kind cannot be trained side by side. So were the ones
        that had no other of their kind beside them: they count for what was found of the kind elsewhere."""
        found: Counter[str] = Counter()
        for reasons in self._alone.values():
            known = [why for why, _ in reasons.most_common() if why]
            for why, count in reasons.items():
                found.update({why or known[0]: count} if known else {})
        return found

    def seconds(self, work: float) -> float:
        """How long so much work takes on all workers together, as timed so far."""
        device = max(self._workers, key=lambda device: self._workers[device])
        return work * self._unit(device) / self._crew(device)

    def _unit(self, device: str) -> float:
        """Seconds a unit of work takes a worker on this device; before it is timed there, a guess by its lanes."""
        for names in ([device], [*self._timed]):
            if timed := sum(self._timed[name] for name in names):
                return sum(self._seconds[name] * LANES[name] for name in names) / LANES[device] / timed
        return FIRST_GUESS * LANES["cpu"] / LANES[device]

    def _crew(self, device: str) -> float:
        """How many workers on this device would be as fast as all workers are together; at least 1."""
        unit = self._unit(device)
        return max(1.0, sum(count * unit / self._unit(other) for other, count in self._workers.items() if count))

    def _next_device(self) -> str:
        """The one with the fewest packs handed out for its workers. Where there is no worker just now, the last of
        them: a pack that waits for a CPU will find one, if only on a node that comes with a GPU."""
        handed = Counter(pack.device for pack in self._running.values())
        open_ = [device for device, count in self._workers.items() if count > 0]
        return min(open_, key=lambda device: handed[device] / self._workers[device], default=[*self._workers][-1])

    def next_pack(self) -> Pack | None:
        """The next pack, or None if there is nothing to hand out just now."""
        self._fill()
        if not self._count:
            return None
        device = self._next_device()
        most, unit = self._lanes or LANES[device], self._unit(device)
        # Towards the end packs shrink, so that the workers finish together.
        fair = max(math.ceil(self._count / (2 * self._crew(device))),
                   min(LEAST_LANES, most, -(-self._count // max(1, sum(self._workers.values())))))
        self._numbers += 1
        pack, seconds, kind, lanes = Pack(self._numbers, {}, {}, device), 0.0, "", 0
        least = LEAST_SECONDS if self._timed[device] else 0.0
        while self._count and (len(pack.specs) < fair or seconds < least) and (seconds < PACK_SECONDS or lanes < most):
            if kind not in self._waiting:
                if seconds >= PACK_SECONDS:
                    break
                kind, lanes = min(self._waiting, key=lambda kind: self._waiting[kind][0]), 0
            if self._waiting[kind][0].alone and pack.specs:
                break
            item = self._take(kind)
            seconds += PER_TRIAL + self._work(item.spec) * unit
            lanes += 1
            pack.specs[item.spec.trial_id] = item.spec
            pack.attempts[item.spec.trial_id] = item.attempts
            if item.alone:
                pack.again = True
                break
        self._running[pack.number] = pack
        self._missing[pack.number] = set(pack.specs)
        return pack

    def came_back(self, number: int, trial_ids: list[str], seconds: float,
                  alone: Mapping[str, str] | None = None) -> None:
        """Rows of these trials of pack ``number`` have arrived; a worker spent ``seconds`` on them. ``alone`` are those
        that it trained by themselves, with why their kind cannot be trained side by side, as far as it knows."""
        self._missing[number] -= set(trial_ids)
        pack = self._running[number]
        for trial_id, why in (alone or {}).items():
            self._alone[self._structure(pack.specs[trial_id])][why] += 1
        self._timed[pack.device] += sum(self._work(pack.specs[trial_id]) for trial_id in trial_ids)
        self._seconds[pack.device] += seconds

    def ended(self, number: int) -> dict[str, TrialSpec]:
        """Pack ``number`` is over; returns the trials of it that have not come back."""
        pack, missing = self._running.pop(number), self._missing.pop(number)
        return {trial_id: spec for trial_id, spec in pack.specs.items() if trial_id in missing}

    def again(self, spec: TrialSpec, attempts: int) -> None:
        """Put a trial back, begun ``attempts`` times so far, in front of all others and in a pack of its own."""
        self._numbers += 1
        self._wait(_Waiting(float("-inf"), self._numbers, spec, attempts, alone=True))

    def _take(self, kind: str) -> _Waiting:
        item = heapq.heappop(self._waiting[kind])
        self._count -= 1
        if not self._waiting[kind]:
            del self._waiting[kind]
        return item

    def _wait(self, item: _Waiting) -> None:
        heapq.heappush(self._waiting.setdefault(self._structure(item.spec), []), item)
        self._count += 1

    def _fill(self) -> None:
        while self._count < WINDOW and not self._exhausted:
            try:
                spec = next(self._stream)
            except StopIteration:
                self._exhausted = True
                return
            if spec is None:  # the design waits for results
                return
            trial_id = spec.trial_id
            if trial_id not in self._committed and trial_id not in self._seen:
                self._seen.add(trial_id)
                self._numbers += 1
                self._wait(_Waiting(-self._work(spec), self._numbers, spec))
        if len(self._seen) > self._seen_most:  # so that it grows with what is under way, not with what is done
            self._seen = {trial_id for trial_id in self._seen if trial_id not in self._committed}
            self._seen_most = WINDOW + 2 * len(self._seen)
