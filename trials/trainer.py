"""Train one trial from its first step to its last, and measure it on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from trials import usercode
from trials.batches import Batches, total_steps
from trials.errors import UserError, describe
from trials.evaluate import evaluate, finite
from trials.knobs.base import Moment
from trials.matrices import matrices
from trials.measure import Measure, steps
from trials.network import Network
from trials.optimizers.base import Params, global_norm
from trials.spec import TrialSpec, make
from trials.step import Step
from trials.streams import Stream, torch_seeded
from trials.tasks.base import Data
from trials.weights import weight_rows

# Losses are read back from the device once in so many steps; a divergence is dated exactly all the same.
CHECK_EVERY = 32
# A loss this many times the first batch's (or 1, if that is larger) has exploded, though it may still be finite.
EXPLODED = 1e6
# Where data are fresh and there is no epoch, the stopping loss is looked at once in so many steps.
FRESH_EPOCH = 100


@dataclass
class Emitted:
    """What a trial has emitted: rows per table, without ids and config columns."""

    trial: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    spectra: list[dict[str, Any]] = field(default_factory=list)


def train(spec: TrialSpec, measure: Measure, device: str = "cpu") -> Emitted:
    """Train the trial to its budget, its stopping loss or its divergence. Raises what user code or torch raise."""
    return _Trainer(spec, measure, device).run()


def rehearse(spec: TrialSpec) -> None:
    """Build everything the trial needs and take one gradient, so that what cannot work is said before a sweep begins.

    Raises UserError, in one line, for whatever goes wrong in a user's own model or task too.
    """
    try:
        trainer = _Trainer(spec, Measure(), "cpu")
        trainer.take(0)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"trial: cannot be trained: {describe(error)}") from error


def load_data(spec: TrialSpec, device: str = "cpu") -> Data:
    """The trial's data on ``device``, in its precision; kept for the next trial of the same task."""
    return _load_data(json.dumps(dict(spec.task), sort_keys=True), device, spec.precision)


@lru_cache(maxsize=4)
def _load_data(task: str, device: str, precision: str) -> Data:
    component = json.loads(task)
    if usercode.is_usercode(component["name"]):
        name = component.pop("name")
        data: Data = usercode.load(name, "trial.task.name")(**component)
        if not isinstance(data, Data):
            raise UserError(f"trial.task.name: {name} must return trials.Data, got {type(data).__name__}")
    else:
        data = make("task", component).data()
    return data.to(device, getattr(torch, precision))


def build_network(spec: TrialSpec, data: Data) -> Network:
    """The trial's model, initialized from its seed's ``init`` stream on the CPU, then moved to the data."""
    params = {key: value for key, value in spec.model.items() if key != "name"}
    with torch_seeded(spec.seed, "init"):
        if usercode.is_usercode(spec.model["name"]):
            module = usercode.load(spec.model["name"], "trial.model.name")(data.input_shape, data.outputs, **params)
            if not isinstance(module, torch.nn.Module):
                raise UserError(f"trial.model.name: {spec.model['name']} must return a torch.nn.Module, "
                                f"got {type(module).__name__}")
        else:
            module = make("model", spec.model).build(data.input_shape, data.outputs)
    return Network(module.to(data.x_train.device, data.dtype))


class _Trainer:
    def __init__(self, spec: TrialSpec, measure: Measure, device: str) -> None:
        self.began = time.perf_counter()
        self.spec, self.device = spec, device
        self.data = load_data(spec, device)
        self.batches = Batches(self.data, spec.batch_size, spec.seed)
        train_size = None if self.data.fresh is not None else len(self.data.x_train)
        self.epoch_steps = None if train_size is None else train_size / spec.batch_size
        self.total = total_steps(spec, train_size)
        self.network = build_network(spec, self.data)
        self.matrices = matrices(self.network.module)
        self.params = self.network.parameters()
        self.initial = {name: value.clone() for name, value in self.params.items()}
        self.optimizer = make("optimizer", spec.optimizer)
        self.state = self.optimizer.init(self.params)
        self.knobs = {name: make("knob", {"name": name, **params}) for name, params in spec.knobs.items()}
        self.streams = {name: Stream.of(spec.seed, f"knob.{name}", device) for name in self.knobs}
        self.step = Step(self.network, self.data, self.optimizer, self.knobs)
        self.due = {what: steps(getattr(measure, what), self.total, measure.per_decade)
                    for what in ("training", "weights", "eigenvalues")}
        self.emitted = Emitted()
        self.unread: list[Tensor] = []  # losses since the last look at them
        self.explosion: float | None = None

    def run(self) -> Emitted:
        # A user's model may draw from torch's global generator (its own dropout, say): seed it, and leave no trace.
        with torch_seeded(self.spec.seed, "global", self.device):
            status, taken, reason = self._run()
        losses = self.emitted.steps[-1] if status != "diverged" else {}
        self.emitted.trial = {
            "status": status, "reason": reason, "steps": taken, "epochs": self._epochs(taken),
            "diverged_step": taken if status == "diverged" else None,
            **{name: losses.get(name) for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
            "parameters": sum(value.numel() for value in self.params.values()),
            "wall_time": time.perf_counter() - self.began,
        }
        return self.emitted

    def _run(self) -> tuple[str, int, str | None]:
        """Returns status, steps taken and the reason of a divergence."""
        loss: Tensor | None = None
        grads: Params | None = None
        for taken in range(self.total + 1):
            if self._must_look(taken):
                diverged = self._look(taken)
                if diverged is not None:
                    return "diverged", *diverged
                stop = self._measure(taken, loss, grads)
                if stop is not None:
                    return stop, taken, "the loss over the training set is not finite" if stop == "diverged" else None
            if taken < self.total:
                loss, grads = self.take(taken)
        return "completed", self.total, None

    def take(self, taken: int) -> tuple[Tensor, Params]:
        """Take step number ``taken``; returns its loss and gradient."""
        moments = {name: Moment(taken, stream, self.initial) for name, stream in self.streams.items()}
        loss, grads = self.step(self.params, self.state, self.batches[taken], moments)
        self.unread.append(loss)
        return loss, grads

    def _must_look(self, taken: int) -> bool:
        return (any(taken in due for due in self.due.values()) or len(self.unread) >= CHECK_EVERY
                or self._may_stop(taken))

    def _may_stop(self, taken: int) -> bool:
        """Whether the stopping loss is looked at here: after each epoch, and wherever losses are measured anyway."""
        every = FRESH_EPOCH if self.epoch_steps is None else max(1, round(self.epoch_steps))
        return self.spec.budget["stop_train_loss"] > 0 and taken % every == 0

    def _epochs(self, taken: int) -> float | None:
        """Passes over the training set in ``taken`` steps; None for fresh data."""
        return None if self.epoch_steps is None else taken / self.epoch_steps

    def _look(self, taken: int) -> tuple[int, str] | None:
        """The step and reason of a divergence among the losses not yet read, if any."""
        if not self.unread:
            return None
        losses = torch.stack(self.unread).tolist()
        first = taken - len(losses)
        self.unread.clear()
        if self.explosion is None:
            self.explosion = EXPLODED * max(1.0, abs(losses[0]))
        for offset, value in enumerate(losses):
            if not finite(value):
                return first + offset, f"the loss of step {first + offset} is not finite"
            if value > self.explosion:
                return first + offset, f"the loss of step {first + offset} exploded to {value:.3g}"
        return None

    def _measure(self, taken: int, loss: Tensor | None, grads: Params | None) -> str | None:
        """Emit what is due after ``taken`` steps; returns the status if the trial ends here."""
        due = {what for what, when in self.due.items() if taken in when}
        if not due and not self._may_stop(taken):
            return None
        losses = evaluate(self.network, self.params, self.data)
        if not finite(losses["train_loss"]):
            return "diverged"
        stop = (losses["train_loss"] or 0.0) < self.spec.budget["stop_train_loss"] and taken > 0
        if stop and taken < self.total:  # the last step is here: what was due then is due now
            due |= {what for what, when in self.due.items() if self.total in when}
        if "training" in due:
            self._emit_step(taken, losses, loss, grads)
        if {"weights", "eigenvalues"} & due:
            self._emit_layers(taken, due)
        return "stopped" if stop and taken < self.total else None

    def _emit_step(self, taken: int, losses: Mapping[str, Any], loss: Tensor | None, grads: Params | None) -> None:
        self.emitted.steps.append({
            "step": taken, "epoch": self._epochs(taken), **losses,
            "batch_loss": None if loss is None else loss.item(),
            "gradient_norm": None if grads is None else global_norm(grads).item(),
            "weight_norm": global_norm(self.params).item(),
            "weight_distance": global_norm(
                {name: value - self.initial[name] for name, value in self.params.items()}).item(),
            "elapsed": time.perf_counter() - self.began,
        })

    def _emit_layers(self, taken: int, due: set[str]) -> None:
        rows, spectra = weight_rows([matrix.of(self.params) for matrix in self.matrices])
        for matrix, row, eigenvalues in zip(self.matrices, rows, spectra, strict=True):
            where = {"step": taken, "layer": matrix.layer}
            if "weights" in due:
                self.emitted.layers.append({**where, "kind": matrix.kind, **row})
            if "eigenvalues" in due and eigenvalues is not None:
                self.emitted.spectra.append({**where, "eigenvalues": eigenvalues})
