"""Train trials of one structure together, as the lanes of a pack, and give each back as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trials.checkpoint import NO_CHECKPOINTS, Checkpoint, Checkpoints, Stopped
from trials.divergence import CHECK_EVERY, NOT_FINITE, Watch
from trials.guest import each_as_guest
from trials.measure import Measure
from trials.observer import Emitted, Observer, observe
from trials.packs.lanes import Lanes
from trials.packs.unfit import Unfit, out_of_memory
from trials.setup import Trial, prepare
from trials.spec import TrialSpec
from trials.trainer import outcome, verdict

IDLE = 1 / 3  # of the lanes: from there on the others are moved together


def train_pack(specs: Sequence[TrialSpec], measure: Measure, device: str, lanes: int,
               checkpoints: Checkpoints = NO_CHECKPOINTS) -> Iterator[tuple[TrialSpec, Emitted]]:
    """Train ``specs``, all of one structure, ``lanes`` at a time; yields each when it is done, in no particular order.

    A lane goes on from its trial's checkpoint if there is one, whatever pack that was in.

    Where memory runs out the number of lanes is halved, down to 2. Raises what user code or torch raise, or
    ``lanes.Unfit``; trials not given back by then are to be trained alone. Raises Stopped where ``checkpoints`` say so.
    """
    return each_as_guest(_train_pack(specs, measure, device, lanes, checkpoints), specs[0].seed, "global", device,
                         f"trial: {specs[0].model['name']}")


def _train_pack(specs: Sequence[TrialSpec], measure: Measure, device: str, lanes: int,
                checkpoints: Checkpoints) -> Iterator[tuple[TrialSpec, Emitted]]:
    waiting = list(specs)
    first = prepare(specs[0], device)
    while waiting:
        checkpoints.go_on()
        some = waiting[:lanes]
        done = set()
        try:
            for spec, emitted in _Pack([prepare(spec, device, first) for spec in some], measure, checkpoints).run():
                done.add(spec.trial_id)
                yield spec, emitted
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(some) <= 2:
                raise
            lanes = max(2, len(some) // 2)
        waiting = [spec for spec in some if spec.trial_id not in done] + waiting[len(some):]


class _Pack:
    def __init__(self, trials: Sequence[Trial], measure: Measure, checkpoints: Checkpoints) -> None:
        self.began = time.perf_counter()
        self.observers = [Observer(trials[0], measure)]
        self.observers += [Observer(trial, measure, self.observers[0]) for trial in trials[1:]]
        self.watches = [Watch() for _ in trials]
        self.size, self.specs = len(trials), [trial.spec for trial in trials]
        self.lanes = Lanes(trials)
        self.checkpoints = checkpoints
        self.resumed: list[int | None] = [None] * self.size  # where a lane went on: what was due there is measured
        for lane, trial in enumerate(trials):
            saved = checkpoints.load(trial.spec)
            if saved is not None:
                saved.restore(self.observers[lane], self.watches[lane])
                self.lanes.resume(lane, saved)
                self.resumed[lane] = saved.taken
        self.alive = list(range(self.size))  # lanes whose trial is not done
        self.unread: list[Tensor] = []
        self.until_look = 0  # steps until a lane is to be looked at

    def run(self) -> Iterator[tuple[TrialSpec, Emitted]]:
        """Each trial that is done. Where the lanes are looked at again now and then (a user's model), those that are
        done wait for the next time: if the lanes turn out to be unfit, all begin anew, alone."""
        held: list[tuple[TrialSpec, Emitted]] = []
        looks = self.lanes.looks
        try:
            for done in self._trained():
                if self.lanes.trusted or self.lanes.looks > looks:
                    yield from held
                    held, looks = [], self.lanes.looks
                held.append(done)
                if self.lanes.trusted:
                    yield held.pop()
        except Stopped:
            yield from held
            raise
        except Unfit:
            for spec in self.specs:
                self.checkpoints.drop(spec)
            raise
        yield from held

    def _trained(self) -> Iterator[tuple[TrialSpec, Emitted]]:
        losses: Tensor | None = None
        norms: Tensor | None = None
        while True:
            taken, due = self.lanes.taken, self.checkpoints.due()
            looked = self._looked() if self.until_look == 0 else []
            if looked or due or len(self.unread) >= CHECK_EVERY:
                yield from self._diverged()
                looked = [lane for lane in looked if lane in self.alive]
            if looked:
                readings = self.lanes.read(looked, losses, norms)
                ends = observe([self.observers[lane] for lane in looked], readings)
                for lane, end in zip(looked, ends, strict=True):
                    if end == "diverged":
                        yield self._end(lane, *verdict(self.observers[lane].trial, taken[lane], NOT_FINITE))
                    elif end is not None:
                        yield self._end(lane, end, taken[lane], None)
                    elif taken[lane] == self.observers[lane].trial.total:
                        yield self._end(lane, "completed", taken[lane], None)
            if not self.alive:
                return
            self._compact()
            if due:
                self._save()
                self.checkpoints.go_on()
            if self.until_look == 0:
                self.until_look = min(self.observers[lane].next_look(self.lanes.taken[lane] + 1)
                                      - self.lanes.taken[lane] for lane in self.alive)
            # Norms of gradients are wanted wherever something is measured after the step.
            losses, norms = self.lanes.step(gradients=self.until_look == 1)
            self.unread.append(losses)
            self.until_look -= 1

    def _looked(self) -> list[int]:
        taken = self.lanes.taken
        return [lane for lane in self.alive if self.observers[lane].next_look(taken[lane]) == taken[lane]
                and taken[lane] != self.resumed[lane]]

    def _save(self) -> None:
        for lane in self.alive:
            params, buffers = ({name: value[lane] for name, value in each.items()}
                               for each in (self.lanes.params, self.lanes.buffers))
            state = {slot: {name: value[lane] for name, value in values.items()}
                     for slot, values in self.lanes.state.items()}
            self.checkpoints.save(self.observers[lane].trial.spec, Checkpoint.of(
                self.observers[lane], self.watches[lane], self.lanes.taken[lane], params, buffers, state, {},
                self._share()))

    def _diverged(self) -> Iterator[tuple[TrialSpec, Emitted]]:
        if not self.unread:
            return
        by_lane = torch.stack(self.unread, 1).tolist()
        steps, self.unread = len(self.unread), []
        for lane in list(self.alive):
            found = self.watches[lane].look(self.lanes.taken[lane] - steps, by_lane[lane])
            if found is not None:
                yield self._end(lane, *verdict(self.observers[lane].trial, *found))

    def _end(self, lane: int, status: str, taken: int, reason: str | None) -> tuple[TrialSpec, Emitted]:
        """The lane goes on, for that costs nothing, but nobody looks at it any more."""
        self.alive.remove(lane)
        observer = self.observers[lane]
        observer.emitted.trial = outcome(observer, status, taken, reason, self._share(), self.size)
        return observer.trial.spec, observer.emitted

    def _share(self) -> float:
        """Of the time until now, that of one trial."""
        return (time.perf_counter() - self.began) / self.size

    def _compact(self) -> None:
        """Drop idle lanes once they are many. Only after the losses were read, which are by lane."""
        if self.unread or len(self.alive) > (1.0 - IDLE) * self.lanes.count:
            return
        self.lanes = self.lanes.keep(self.alive)
        self.observers = [self.observers[lane] for lane in self.alive]
        self.watches = [self.watches[lane] for lane in self.alive]
        self.resumed = [self.resumed[lane] for lane in self.alive]
        self.alive = list(range(self.lanes.count))
