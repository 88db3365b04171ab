"""Train one trial by itself, from its first step to its last, and measure it on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from trials import generators, usercode
from trials.batches import Batches
from trials.blame import blame
from trials.checkpoint import NO_CHECKPOINTS, Checkpoint, Checkpoints
from trials.divergence import CHECK_EVERY, NOT_FINITE, Watch
from trials.evaluate import NAMES, chance_loss, evaluate
from trials.guest import put_back
from trials.knobs.base import Moment
from trials.measure import Measure
from trials.observer import Emitted, Observer, Reading, observe
from trials.optimizers.base import Params, global_norm
from trials.setup import Trial, prepare
from trials.spec import TrialSpec
from trials.step import Step
from trials.streams import seeded


def train(spec: TrialSpec, measure: Measure, device: str = "cpu",
          checkpoints: Checkpoints = NO_CHECKPOINTS) -> Emitted:
    """Train the trial to its budget, its stopping loss or its divergence, from its checkpoint on if there is one.

    Raises what user code or torch raise, and Stopped where ``checkpoints`` say so.
    """
    checkpoints.go_on()
    began = time.perf_counter()
    with put_back(f"trial: {spec.model['name']}"):
        trial = prepare(spec, device)
        observer = Observer(trial, measure)
        with seeded(spec.seed, "global", device):  # a user's model may draw from it (for its own dropout, say)
            status, taken, reason = _run(Alone(trial), observer, checkpoints, began)
    observer.emitted.trial = outcome(observer, status, taken, reason, time.perf_counter() - began)
    return observer.emitted


@contextlib.contextmanager
def _aside(trial: Trial, taken: int) -> Iterator[None]:
    """For evaluations: what a user's model draws then does not depend on, and does not shift, what it draws in
    training."""
    if usercode.is_usercode(trial.spec.model["name"]):
        with seeded(trial.spec.seed, f"evaluation {taken}", trial.device):
            yield
    else:
        yield


def verdict(trial: Trial, taken: int, reason: str) -> tuple[str, int, str]:
    """Status, step and reason of a trial whose loss is not finite."""
    blamed = blame(trial, taken)
    return ("diverged", taken, reason) if blamed is None else ("failed", taken, blamed)


def outcome(observer: Observer, status: str, taken: int, reason: str | None, spent: float, lanes: int = 1,
            ) -> dict[str, object]:
    """The row of ``trials`` of a trial that came to an end after ``taken`` steps (its divergence is at that step), on
    which ``spent`` seconds went since it was last taken up."""
    emitted, trial = observer.emitted, observer.trial
    losses = emitted.steps[-1] if status not in ("diverged", "failed") else {}
    return {
        "status": status, "reason": reason, "steps": taken, "epochs": observer.epochs(taken),
        "diverged_step": taken if status == "diverged" else None,
        **{name: losses.get(name) for name in NAMES}, "chance_loss": chance_loss(trial.data, trial.given),
        "parameters": sum(value.numel() for value in trial.initial.values()),
        "wall_time": observer.spent + spent, "lanes": lanes,
    }


class Alone:
    """A trial in training: its parameters, buffers and optimizer's state, and the steps ``taken`` so far."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.taken = trial, 0
        self.params: Params = {name: value.clone() for name, value in trial.initial.items()}
        self.buffers: Params = {name: value.clone() for name, value in trial.buffers.items()}
        self.state = trial.optimizer.init(self.params)
        self._remembered = trial.network.memory.now()
        self._batches = Batches(trial.data, trial.spec.batch_size, trial.spec.seed)
        self._step = Step(trial.network, trial.data, trial.optimizer, trial.schedule, trial.knobs, trial.total)

    def take(self) -> tuple[Tensor, Params]:
        """Take the next step; returns its loss and gradient."""
        trial, batch = self.trial, self._batches[self.taken]
        moments = {name: Moment(self.taken, stream, trial.initial, batch.samples_B)
                   for name, stream in trial.streams.items()}
        loss, grads = self._step(self.params, self.buffers, self.state, batch, self.taken, moments)
        self.taken += 1
        return loss, grads

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from there."""
        self.taken = checkpoint.taken
        put(self.params, checkpoint.params)
        self.buffers.update({name: value.to(self.trial.data.x_train.device)  # which may have changed in shape
                             for name, value in checkpoint.buffers.items()})
        for slot, tensors in checkpoint.state.items():
            if slot in self.state:
                put(self.state[slot], tensors)
            else:  # that came in training
                self.state[slot] = dict(tensors)
        self.trial.network.memory.put(checkpoint.memory)

    def checkpoint(self, observer: Observer, watch: Watch, spent: float) -> Checkpoint | None:
        """The trial now, ``spent`` seconds after it was taken up; None where its model remembers what cannot be saved,
        such as a graph that gradients take."""
        memory = self.trial.network.memory.since(self._remembered)
        if memory:
            drawn = generators.states()
            if self._step.reaches_back(self.params, self.buffers, self._batches[self.taken].x_B):
                memory = None
            generators.restore(drawn)
        return None if memory is None else Checkpoint.of(observer, watch, self.taken, self.params, self.buffers,
                                                         self.state, memory, spent)

    def read(self, loss: Tensor | None, grads: Params | None) -> Reading:
        """The trial now; ``loss`` and ``grads`` are those of its last step."""
        change = {name: value - self.trial.initial[name] for name, value in self.params.items()}
        losses = evaluate(self.trial.network, self.params, self.buffers, self.trial.data, self.trial.given)
        return Reading(self.taken, self.params, self.buffers, losses,
                       global_norm(self.params).item(), global_norm(change).item(),
                       None if loss is None else loss.item(), None if grads is None else global_norm(grads).item())


def put(tensors: Params, values: Params) -> None:
    """Overwrite each tensor by the value of its name."""
    for name, value in values.items():
        tensors[name].copy_(value)


def _run(alone: Alone, observer: Observer, checkpoints: Checkpoints, began: float) -> tuple[str, int, str | None]:
    """Returns status, steps taken and the reason of a divergence."""
    loss: Tensor | None = None
    grads: Params | None = None
    watch = Watch()
    unread: list[Tensor] = []
    saved = checkpoints.load(alone.trial.spec)
    if saved is not None:
        saved.restore(observer, watch)
        generators.restore(saved.generators)
        alone.resume(saved)
    resumed = alone.taken if saved is not None else None  # what was due there has been measured
    while True:
        taken = alone.taken
        due = checkpoints.due()
        looks = observer.next_look(taken) == taken and taken != resumed
        if looks or due or len(unread) >= CHECK_EVERY:
            diverged = watch.look(taken - len(unread), torch.stack(unread).tolist() if unread else [])
            unread = []
            if diverged is not None:
                return verdict(alone.trial, *diverged)
        if looks:
            with _aside(alone.trial, taken):
                [end] = observe([observer], [alone.read(loss, grads)])
            if end is not None:
                return verdict(alone.trial, taken, NOT_FINITE) if end == "diverged" else (end, taken, None)
        if taken == alone.trial.total:
            return "completed", taken, None
        if due:
            saved = alone.checkpoint(observer, watch, time.perf_counter() - began)
            if saved is not None:  # such a trial begins anew
                checkpoints.save(alone.trial.spec, saved)
            checkpoints.go_on()
        loss, grads = alone.take()
        unread.append(loss)
