"""Measure trials at the moments their study asks for, and keep the rows that come of it."""

from __future__ import annotations

import bisect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trials.convolutions import Operator, operators
from trials.evaluate import Losses, finite
from trials.in_use import WeightsInUse
from trials.matrices import Matrix, matrices
from trials.measure import GROUPS, Measure, steps
from trials.measurements import ByLayer, measure
from trials.measurements.base import Snapshot
from trials.optimizers.base import Params
from trials.setup import Trial
from trials.streams import Stream
from trials.weights import layer_rows

# Where data are fresh and there is no epoch, the stopping loss is looked at once in so many steps.
FRESH_EPOCH = 100


@dataclass
class Emitted:
    """What a trial has emitted: rows per table, without ids and config columns."""

    trial: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    spectra: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Reading:
    """A trial after ``taken`` steps: its parameters and buffers, its losses over the whole data, and of the last step
    the loss and the gradient's norm (None before the first)."""

    taken: int
    params: Params
    buffers: Params
    losses: Losses
    weight_norm: float
    weight_distance: float
    batch_loss: float | None
    gradient_norm: float | None


class Observer:
    """Watches one trial; see ``observe``. ``like`` is the observer of a trial with the same model and task."""

    def __init__(self, trial: Trial, wanted: Measure, like: Observer | None = None) -> None:
        self.trial, self.emitted = trial, Emitted()
        if like is None:
            module, example = trial.network.module, trial.data.x_train[:1]
            with trial.network.evaluating():  # which leaves no trace
                self.in_use = WeightsInUse(module, example)
                self.matrices: list[Matrix] = matrices(module, self.in_use.computed, self.in_use.doubts)
                self.operators: list[Operator] = operators(module, example, self.in_use.computed)
        else:
            self.in_use, self.matrices, self.operators = like.in_use, like.matrices, like.operators
        total = trial.total
        self._due = {what: steps(getattr(wanted, what), total, wanted.per_decade) for what in GROUPS}
        looks = {step for when in self._due.values() for step in when}
        if trial.spec.budget["stop_train_loss"] > 0:  # after each epoch, and where losses are measured anyway
            epoch = FRESH_EPOCH if trial.epoch_steps is None else max(1, round(trial.epoch_steps))
            looks |= set(range(0, total, epoch))
        self._looks = sorted(looks)
        self._root = Stream.of(trial.spec.seed, "measure", trial.device)
        # Curvature, gradients and collapse are of the loss that is trained on, so of its labels.
        self._data = trial.data if trial.given is None else replace(trial.data, y_train=trial.given)
        self._memory: dict[Any, Any] = {}
        self.kept: dict[str, Tensor] = {}  # from one moment to the next, by measurements
        self.began = time.perf_counter()
        self.spent = 0.0  # seconds, until the checkpoint that the trial goes on from: its share of each pack's

    def due(self, taken: int) -> set[str]:
        """What is to be measured after ``taken`` steps."""
        return {what for what, when in self._due.items() if taken in when}

    def next_look(self, taken: int) -> int:
        """The first step from ``taken`` on after which the trial is to be looked at; the last step, at the latest."""
        place = bisect.bisect_left(self._looks, taken)
        return self._looks[place] if place < len(self._looks) else self.trial.total

    def epochs(self, taken: int) -> float | None:
        """Passes over the training set in ``taken`` steps; None for fresh data."""
        return None if self.trial.epoch_steps is None else taken / self.trial.epoch_steps

    def ends(self, reading: Reading) -> str | None:
        """``diverged`` where the training loss is not finite (nothing is emitted then), ``stopped`` where it is below
        the stopping loss before the budget ends, else None."""
        loss = reading.losses["train_loss"]
        if not finite(loss):
            return "diverged"
        threshold = self.trial.spec.budget["stop_train_loss"]
        return "stopped" if (loss or 0.0) < threshold and 0 < reading.taken < self.trial.total else None

    def snapshot(self, reading: Reading) -> Snapshot:
        """What measurements look at."""
        trial = self.trial
        now, total = (torch.tensor(float(number), dtype=torch.float64) for number in (reading.taken, trial.total))
        return Snapshot(trial.network, reading.params, reading.buffers, trial.initial, trial.buffers, self._data,
                        reading.taken, trial.spec.batch_size,
                        trial.optimizer.lr * float(trial.schedule.factor(now.clamp(max=total - 1.0), total)),
                        float(getattr(trial.optimizer, "momentum", 0.0)), self._root, self._memory,
                        self.kept)

    def weights(self, params: Params, buffers: Params) -> Params:
        """The weights in use, by name."""
        if self.in_use.as_stored:
            return {**params, **buffers}
        with self.trial.network.evaluating():
            return self.in_use({**params, **buffers})

    def emit_step(self, reading: Reading, values: dict[str, Any]) -> None:
        """A row of ``steps``."""
        self.emitted.steps.append({
            "step": reading.taken, "epoch": self.epochs(reading.taken), **reading.losses, **values,
            "batch_loss": reading.batch_loss, "gradient_norm": reading.gradient_norm,
            "weight_norm": reading.weight_norm, "weight_distance": reading.weight_distance,
            "elapsed": time.perf_counter() - self.began,
        })

    def emit_layers(self, taken: int, due: set[str], layers: ByLayer, found: list[dict[str, Any]],
                    spectra: Sequence[list[float] | None]) -> None:
        """A row for each weight matrix, and for each other layer (a nonlinearity) that something was measured of."""
        rows = {layer: {"kind": "activation", "of": "weight", **values} for layer, values in layers.items()}
        for row, eigenvalues in zip(found, spectra, strict=True):
            layer = row["layer"]
            if row["of"] == "change" or "weights" in due:
                rows[layer] = {**rows.get(layer, {}), **row}
            if "eigenvalues" in due and eigenvalues is not None:
                self.emitted.spectra.append({"step": taken, "layer": layer, "eigenvalues": eigenvalues})
        self.emitted.layers += [{"step": taken, "layer": layer, **row} for layer, row in rows.items()]


def observe(observers: Sequence[Observer], readings: Sequence[Reading]) -> list[str | None]:
    """Measure what is due of some trials with one model, all their weight matrices of one shape in one batch.

    Returns how each of them ends here (see ``Observer.ends``), None where it goes on.
    """
    ends = [observer.ends(reading) for observer, reading in zip(observers, readings, strict=True)]
    matrix_rows: dict[tuple[bool, bool], list[tuple[Observer, Reading, set[str], ByLayer]]] = {}
    for observer, reading, end in zip(observers, readings, ends, strict=True):
        if end == "diverged":
            continue
        taken = reading.taken
        # Where a trial stops is its last step: what was due then is due now.
        due = observer.due(taken) | (observer.due(observer.trial.total) if end else set())
        step, layers, spectra = measure(observer.snapshot(reading), due)
        if "training" in due or step:
            observer.emit_step(reading, step)
        observer.emitted.spectra += [{"step": taken, "layer": layer, **values} for layer, values in spectra.items()]
        changes = "changes" in due and taken > 0  # before training there is none
        weights = changes or bool(due & {"weights", "eigenvalues"})
        matrix_rows.setdefault((weights, changes), []).append((observer, reading, due, layers))
    for (weights, changes), group in matrix_rows.items():
        found: list[Any] = [([], [])] * len(group)
        if weights:
            params = [observer.weights(reading.params, reading.buffers) for observer, reading, _, _ in group]
            initial = ([observer.weights(observer.trial.initial, observer.trial.buffers)
                        for observer, _, _, _ in group] if changes else None)
            found = layer_rows(group[0][0].matrices, params, initial, group[0][0].operators)
        for (observer, reading, due, layers), (rows, eigenvalues) in zip(group, found, strict=True):
            observer.emit_layers(reading.taken, due, layers, rows, eigenvalues)
    return ends
