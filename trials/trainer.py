"""Train one trial from its first step to its last, and measure it on the way."""

from __future__ import annotations

import json
import time
from functools import lru_cache

import torch
from torch import Tensor

from trials import usercode
from trials.batches import Batches, total_steps
from trials.errors import UserError, describe
from trials.evaluate import finite
from trials.knobs.base import Moment
from trials.measure import Measure
from trials.network import Network
from trials.observer import Emitted, Observer
from trials.optimizers.base import Params
from trials.spec import TrialSpec, make
from trials.step import Step
from trials.streams import Stream, torch_seeded
from trials.tasks.base import Data

# Losses are read back from the device once in so many steps; a divergence is dated exactly all the same.
CHECK_EVERY = 32
# A loss this many times the first batch's (or 1, if that is larger) has exploded, though it may still be finite.
EXPLODED = 1e6
# Where data are fresh and there is no epoch, the stopping loss is looked at once in so many steps.
FRESH_EPOCH = 100


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
    network = Network(module.to(data.x_train.device, data.dtype))
    _check_output(network, data)
    return network


@torch.no_grad()
def _check_output(network: Network, data: Data) -> None:
    """An output (B,) against targets (B, 1) would broadcast to a loss of something else, so the shape must be right."""
    x_B = data.x_train[:2]
    with network.evaluating():
        shape, expected = tuple(network(network.parameters(), x_B).shape), (len(x_B), data.outputs)
    if shape != expected:
        raise UserError(f"trial.model: gives an output of shape {shape} for {len(x_B)} inputs; expected {expected}")


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
        self.params = self.network.parameters()
        self.initial = {name: value.clone() for name, value in self.params.items()}
        self.optimizer = make("optimizer", spec.optimizer)
        self.state = self.optimizer.init(self.params)
        self.knobs = {name: make("knob", {"name": name, **params}) for name, params in spec.knobs.items()}
        self.streams = {name: Stream.of(spec.seed, f"knob.{name}", device) for name in self.knobs}
        self.step = Step(self.network, self.data, self.optimizer, self.knobs)
        self.observer = Observer(spec, measure, self.network, self.data, self.optimizer, self.initial, self.total,
                                 self.epoch_steps)
        self.unread: list[Tensor] = []  # losses since the last look at them
        self.explosion: float | None = None

    def run(self) -> Emitted:
        # A user's model may draw from torch's global generator (its own dropout, say): seed it, and leave no trace.
        with torch_seeded(self.spec.seed, "global", self.device):
            status, taken, reason = self._run()
        emitted = self.observer.emitted
        losses = emitted.steps[-1] if status != "diverged" else {}
        emitted.trial = {
            "status": status, "reason": reason, "steps": taken, "epochs": self.observer.epochs(taken),
            "diverged_step": taken if status == "diverged" else None,
            **{name: losses.get(name) for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
            "parameters": sum(value.numel() for value in self.params.values()),
            "wall_time": time.perf_counter() - self.began,
        }
        return emitted

    def _run(self) -> tuple[str, int, str | None]:
        """Returns status, steps taken and the reason of a divergence."""
        loss: Tensor | None = None
        grads: Params | None = None
        for taken in range(self.total + 1):
            moment = bool(self.observer.due(taken)) or self._may_stop(taken)
            if moment or len(self.unread) >= CHECK_EVERY:
                diverged = self._look(taken)
                if diverged is not None:
                    return "diverged", *diverged
            if moment:
                end = self.observer.observe(self.params, taken, loss, grads)
                if end is not None:
                    return end, taken, "the loss over the training set is not finite" if end == "diverged" else None
            if taken < self.total:
                loss, grads = self.take(taken)
        return "completed", self.total, None

    def take(self, taken: int) -> tuple[Tensor, Params]:
        """Take step number ``taken``; returns its loss and gradient."""
        moments = {name: Moment(taken, stream, self.initial) for name, stream in self.streams.items()}
        loss, grads = self.step(self.params, self.state, self.batches[taken], moments)
        self.unread.append(loss)
        return loss, grads

    def _may_stop(self, taken: int) -> bool:
        """Whether the stopping loss is looked at here: after each epoch, and wherever losses are measured anyway."""
        every = FRESH_EPOCH if self.epoch_steps is None else max(1, round(self.epoch_steps))
        return self.spec.budget["stop_train_loss"] > 0 and taken % every == 0

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
