"""K trials of one structure as the lanes of stacked tensors, and one step of training for all of them at once.

A lane takes the same step as a trial alone (trials/step.py): it is vectorized by ``torch.func.vmap``, recorded once as
a graph of operations (graph.py), and held against trials alone before it is trusted. The numbers of a lane do not
depend on its neighbours beyond rounding: nothing in a step looks across lanes.

Shapes: K lanes come first in every tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from trials import generators, usercode
from trials.batches import PackBatches, fresh
from trials.checkpoint import Checkpoint
from trials.evaluate import evaluate_lanes
from trials.knobs.base import Moment
from trials.observer import Reading
from trials.optimizers.base import Params, State
from trials.packs.graph import record
from trials.packs.recording import Recording
from trials.packs.same import difference, steps_differ
from trials.packs.structure import reals, structure
from trials.packs.unfit import Unfit, plain
from trials.setup import Trial
from trials.step import Batch, Step
from trials.streams import Stream
from trials.trainer import Alone, put

# By structure: the numbers of the first trial seen, and those in which any trial since has differed from it, in this
# pack or in one before; the others are written into the recording.
_seen: dict[str, dict[tuple[str, str], float]] = {}
_varying: dict[str, set[tuple[str, str]]] = {}
_recordings: dict[Any, Recording | None] = {}
_trusted: set[Any] = set()  # held against trials alone
_KEPT = 64  # recordings
# A user's model may come to do otherwise than it was recorded: it is looked at after so many steps, and again each time
# that these have multiplied by so much.
FIRST_LOOK, LOOK_GROWTH = 8, 4


class Lanes:
    """Trials in training side by side. Raises Unfit, or what torch raises, where that cannot be."""

    def __init__(self, trials: Sequence[Trial], checked: bool = True) -> None:
        first = trials[0]
        self.trials = list(trials)
        self.params: Params = _stack([trial.initial for trial in trials])
        self.buffers: Params = _stack([trial.buffers for trial in trials])
        self.initial: Params = {name: value.clone() for name, value in self.params.items()}
        states = [trial.optimizer.init(trial.initial) for trial in trials]
        self.state: State = {slot: _stack([state[slot] for state in states]) for slot in states[0]}
        device = first.data.x_train.device
        self.taken = [0] * len(trials)
        self._step = torch.zeros(len(trials), dtype=torch.int64, device=device)
        self._total = torch.tensor([trial.total for trial in trials], device=device)
        self._keys = {name: torch.stack([trial.streams[name].key for trial in trials]) for name in first.streams}
        self._data_key = torch.stack([Stream.of(trial.spec.seed, "data", device).key for trial in trials])
        numbers = [reals(trial.spec) for trial in trials]
        kind = structure(first.spec)
        varying = _varying.setdefault(kind, set())
        before = _seen.setdefault(kind, numbers[0])
        varying |= {place for each in numbers for place, value in each.items() if value != before[place]}
        baked = {place: value for place, value in numbers[0].items() if place not in varying}
        self._reals = {place: torch.tensor([each[place] for each in numbers], dtype=torch.float64, device=device)
                       for place in sorted(varying)}
        # A user's model may hold tensors that are no parameters: they are written into the recording too.
        own = first.network if usercode.is_usercode(first.spec.model["name"]) else None
        self._kind = (kind, len(trials), str(device), tuple(sorted(varying)), tuple(baked.items()), own)
        self._batches: PackBatches | None = None
        self._replay: Callable[..., list[Tensor]] | None = None
        self._memory = own.memory if own is not None else None
        self._here, self._next_look = 0, FIRST_LOOK
        self.looks = 0
        self._vectorized: Callable[..., Any] = vmap(self._lane)
        if checked:
            self._check()

    @property
    def count(self) -> int:
        """K."""
        return len(self.trials)

    @property
    def trusted(self) -> bool:
        """Whether the model is ours, which does not change what it does."""
        return self._memory is None

    def step(self, gradients: bool = False) -> tuple[Tensor, Tensor | None]:
        """Take the next step in every lane; returns the losses (K,) and, if asked, the norms of the gradients (K,)."""
        batch = self._batch()
        with torch.no_grad():
            if gradients:
                losses, grads = self._vectorized(*self._fixed, self._step, batch)
                norms = _norms(grads)
            else:
                self._replay = self._replay or self._bound(batch)
                look = self._memory is not None and self._here >= self._next_look
                before = _copies(self._fixed[:3]) if look else None
                [losses], norms = self._replay(self._step, *batch), None
                if before is not None:
                    self._look_again(before, batch)
        self._here += 1
        self._step += 1
        self.taken = [taken + 1 for taken in self.taken]
        return losses, norms

    def read(self, lanes: Sequence[int], losses: Tensor | None, norms: Tensor | None) -> list[Reading]:
        """Some lanes now; ``losses`` and ``norms`` (K,) are those of the last step."""
        some = torch.tensor(lanes, device=self._step.device)
        every = len(lanes) == self.count
        params, buffers, initial = ({name: value if every else value[some] for name, value in each.items()}
                                    for each in (self.params, self.buffers, self.initial))
        data, network = self.trials[0].data, self.trials[0].network
        given = [label_n for lane in lanes if (label_n := self.trials[lane].given) is not None]
        evaluated = evaluate_lanes(network, params, buffers, data, torch.stack(given) if given else None)
        sizes = _norms(params).tolist()
        moved = _norms({name: value - initial[name] for name, value in params.items()}).tolist()
        batch_losses = [None] * self.count if losses is None else losses.tolist()
        grads = [None] * self.count if norms is None else norms.tolist()
        return [Reading(self.taken[lane], {name: value[place] for name, value in params.items()},
                        {name: value[place] for name, value in buffers.items()}, evaluated[place],
                        sizes[place], moved[place], batch_losses[lane], grads[lane])
                for place, lane in enumerate(lanes)]

    def keep(self, lanes: Sequence[int]) -> Lanes:
        """Only these lanes, in this order, as they are now."""
        kept = Lanes([self.trials[lane] for lane in lanes], checked=False)
        some = torch.tensor(lanes, device=self._step.device)
        for mine, theirs in zip(pytree.tree_leaves((self.params, self.buffers, self.state, self._step)),
                                pytree.tree_leaves((kept.params, kept.buffers, kept.state, kept._step)), strict=True):
            theirs.copy_(mine[some])
        kept.taken = [self.taken[lane] for lane in lanes]
        kept._here, kept._next_look, kept.looks = self._here, self._next_look, self.looks
        return kept

    def resume(self, lane: int, checkpoint: Checkpoint) -> None:
        """Let a lane go on from there; before the first step."""
        self.taken[lane] = checkpoint.taken
        self._step[lane] = checkpoint.taken
        for mine, theirs in ((self.params, checkpoint.params), (self.buffers, checkpoint.buffers)):
            put({name: value[lane] for name, value in mine.items()}, theirs)
        for slot in self.state:  # of one taken alone, what was skipped too, which no lane ever uses
            put({name: value[lane] for name, value in self.state[slot].items()}, checkpoint.state[slot])

    def _batch(self) -> tuple[Tensor, ...]:
        first = self.trials[0]
        if first.data.fresh is not None:
            return ()
        if self._batches is None:
            self._batches = PackBatches(first.data, first.spec.batch_size,
                                        [trial.spec.seed for trial in self.trials], self.taken)
        batch = self._batches.next()
        assert batch.samples_B is not None
        return batch.x_B, batch.target_BC, batch.samples_B

    def _lane(self, params: Params, buffers: Params, state: State, initial: Params,
              numbers: Mapping[tuple[str, str], Tensor], keys: Mapping[str, Tensor], data_key: Tensor, total: Tensor,
              step: Tensor, batch: tuple[Tensor, ...]) -> tuple[Tensor, Params]:
        """One step of one lane; everything is without the first dimension here."""
        trial = self.trials[0]

        def with_numbers(component: Any, part: str) -> Any:
            return replace(component, **{name: value for (where, name), value in numbers.items() if where == part})

        knobs = {name: with_numbers(knob, f"knobs.{name}") for name, knob in trial.knobs.items()}
        taking = Step(trial.network, trial.data, with_numbers(trial.optimizer, "optimizer"),
                      with_numbers(trial.schedule, "schedule"), knobs, total, functional=True)
        drawn = Batch(*batch) if batch else fresh(trial.data, Stream(data_key), step, trial.spec.batch_size)
        moments = {name: Moment(step, Stream(key), initial, drawn.samples_B) for name, key in keys.items()}
        return taking(params, buffers, state, drawn, step, moments)

    @property
    def _fixed(self) -> tuple[Any, ...]:
        """What stays the same tensors from step to step; some are changed in place by the step."""
        return (self.params, self.buffers, self.state, self.initial, self._reals, self._keys, self._data_key,
                self._total)

    def _bound(self, batch: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
        """The step as a function of its number and its batch: recorded, or as it is where that cannot be."""
        fixed, tree = pytree.tree_flatten(self._fixed)

        def losses(*tensors: Tensor) -> list[Tensor]:
            step, *rest = tensors[len(fixed):]
            return [self._vectorized(*pytree.tree_unflatten(tensors[:len(fixed)], tree), step, tuple(rest))[0]]

        kind = (*self._kind, tuple(part.stride() for part in batch))  # not all views are possible for all strides
        if kind not in _recordings:
            if len(_recordings) >= _KEPT:
                _recordings.pop(next(iter(_recordings)))
            try:
                _recordings[kind] = record(losses, [*fixed, self._step, *batch])
            except torch.OutOfMemoryError:
                raise
            except Exception:  # whatever a user's model may do that a recording cannot follow
                _recordings[kind] = None
        recording = _recordings[kind]
        return recording.bind(fixed) if recording is not None else lambda *varying: losses(*fixed, *varying)

    def _check(self) -> None:
        """Hold two steps of the first and the last lane against the same trials alone. Raises Unfit."""
        if self._kind in _trusted:
            return
        if self.trials[0].network.backward_reads:
            raise Unfit("the model's backward pass reads its weights (torch.utils.checkpoint, or a hook of its own)")
        alone = {lane: Alone(self.trials[lane]) for lane in {0, self.count - 1}}
        memory, drawn = self.trials[0].network.memory, generators.states()
        remembered = memory.now()
        for _ in range(2):
            for trial in alone.values():
                trial.take()
        changed = memory.changed(remembered)
        if changed:
            saved = memory.since(remembered) is not None
            memory.put_back(remembered)
            raise Unfit(f"the model changes {plain(changed)} as it trains" + (
                "" if saved else ", which no checkpoint can hold: a trial that is stopped begins anew"))
        if who := generators.drawn(drawn):
            raise Unfit(f"the model draws random numbers from {who}")
        trying = Lanes(self.trials, checked=False)
        for _ in range(2):
            trying.step()
        readings = trying.read(range(self.count), None, None)
        for lane, trial in alone.items():
            if what := difference(readings[lane], trial.read(None, None), trial.trial.initial):
                raise Unfit(f"{what} otherwise in a pack than alone")
        _trusted.add(self._kind)

    def _look_again(self, before: Any, batch: tuple[Tensor, ...]) -> None:
        """Hold the recorded step that was taken from ``before`` against the model as it is now. Raises Unfit."""
        assert self._memory is not None
        self.looks, self._next_look = self.looks + 1, LOOK_GROWTH * self._next_look
        remembered, trying = self._memory.now(), _copies(before)
        self._vectorized(*trying, *self._fixed[3:], self._step, batch)
        changed = self._memory.changed(remembered)
        if changed or steps_differ(before[:2], self._fixed[:2], trying[:2]):
            raise Unfit(f"after {self._here} steps the model does otherwise than in its first")


def _copies(tensors: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, tensors)


def _stack(each: Sequence[Params]) -> Params:
    return {name: torch.stack([params[name] for params in each]) for name in each[0]}


def _norms(tensors: Params) -> Tensor:
    """Euclidean norm of all the numbers of each lane, (K,)."""
    each = [torch.linalg.vector_norm(value.reshape(len(value), -1), dim=1) for value in tensors.values()]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
    return norms
