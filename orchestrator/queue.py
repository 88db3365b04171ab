"""What is still to be run, in packs: the design minus what is committed, plus what came back unfinished."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from trials.spec import TrialSpec

Work = Callable[[TrialSpec], float]  # how much work a trial is, in a unit of its own
Structure = Callable[[TrialSpec], str]  # equal for trials that may be trained side by side

WINDOW = 4096  # trials looked at ahead of the workers; among these the longest start first
PACK_SECONDS = 2.0  # a pack should keep a worker busy this long: Ray Tune spends about 30 ms on each
LEAST_SECONDS = 0.5  # shorter packs, as far as has been timed, are not worth sharing out
FIRST_GUESS = 2e-5  # seconds a unit of work, before any has been timed
PER_TRIAL = 0.001  # seconds a trial costs beside its steps
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
    """Some trials for one worker. ``attempts`` says how often each has been begun before, by id."""

    number: int
    specs: dict[str, TrialSpec]
    attempts: dict[str, int]

    def __repr__(self) -> str:  # Ray Tune makes file names of it
        return f"pack{self.number}"

    def __deepcopy__(self, memo: object) -> Pack:  # Ray Tune copies configurations for every trial
        return self


class Queue:
    """Hands out packs until the design is exhausted and every trial has come back.

    ``stream`` yields trials, or None where an adaptive design waits for results. ``committed`` ids are left out; so
    is a trial that the stream repeats. ``workers`` packs run at once. Trials of one ``structure`` go
    together, at least ``lanes`` of them while there are so many (1: trials are trained one by one).
    """

    def __init__(self, stream: Iterator[TrialSpec | None], committed: Container[str], work: Work,
                 workers: int, structure: Structure, lanes: int) -> None:
        self._stream, self._committed, self._work, self._workers = stream, committed, work, workers
        self._structure, self._lanes = structure, lanes
        self._waiting: dict[str, list[_Waiting]] = {}  # heaps, by structure
        self._count = 0  # of all that wait
        self._seen: set[str] = set()
        self._running: dict[int, Pack] = {}
        self._missing: dict[int, set[str]] = {}
        self._exhausted = False
        self._numbers = 0
        self._seconds = self._timed_work = 0.0
        self.work_done = 0.0

    @property
    def finished(self) -> bool:
        """Whether nothing is waiting, running or yet to come."""
        if not self._count and not self._running:
            self._fill()
        return self._exhausted and not self._count and not self._running

    def seconds(self, work: float) -> float:
        """How long so much work takes on all workers together, as timed so far."""
        return work * self._unit_seconds / max(1, self._workers)

    @property
    def _unit_seconds(self) -> float:
        return self._seconds / self._timed_work if self._timed_work else FIRST_GUESS

    def next_pack(self) -> Pack | None:
        """The next pack, or None if there is nothing to hand out just now."""
        self._fill()
        if not self._count:
            return None
        # Towards the end packs shrink, so that the workers finish together.
        workers = max(1, self._workers)
        fair = max(-(-self._count // (2 * workers)), min(LEAST_LANES, self._lanes, -(-self._count // workers)))
        self._numbers += 1
        pack, seconds, kind, lanes = Pack(self._numbers, {}, {}), 0.0, "", 0
        least = LEAST_SECONDS if self._timed_work else 0.0
        while (self._count and (len(pack.specs) < fair or seconds < least)
               and (seconds < PACK_SECONDS or lanes < self._lanes)):
            if kind not in self._waiting:
                if seconds >= PACK_SECONDS:
                    break
                kind, lanes = min(self._waiting, key=lambda kind: self._waiting[kind][0]), 0
            if self._waiting[kind][0].alone and pack.specs:
                break
            item = self._take(kind)
            seconds += PER_TRIAL + self._work(item.spec) * self._unit_seconds
            lanes += 1
            pack.specs[item.spec.trial_id] = item.spec
            pack.attempts[item.spec.trial_id] = item.attempts
            if item.alone:
                break
        self._running[pack.number] = pack
        self._missing[pack.number] = set(pack.specs)
        return pack

    def came_back(self, number: int, trial_ids: list[str], seconds: float) -> None:
        """Rows of these trials of pack ``number`` have arrived; a worker spent ``seconds`` on them."""
        self._missing[number] -= set(trial_ids)
        work = sum(self._work(self._running[number].specs[trial_id]) for trial_id in trial_ids)
        self.work_done += work
        self._timed_work += work
        self._seconds += seconds

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
                self._wait(_Waiting(-self._work(spec), len(self._seen), spec))
