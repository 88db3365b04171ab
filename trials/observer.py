"""Measure a trial at the moments its study asks for, and keep the rows that come of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trials.convolutions import operators
from trials.evaluate import evaluate, finite
from trials.matrices import matrices
from trials.measure import GROUPS, Measure, steps
from trials.measurements import measure
from trials.measurements.base import Snapshot
from trials.network import Network
from trials.optimizers.base import Optimizer, Params, global_norm
from trials.spec import TrialSpec
from trials.streams import Stream
from trials.tasks.base import Data
from trials.weights import layer_rows


@dataclass
class Emitted:
    """What a trial has emitted: rows per table, without ids and config columns."""

    trial: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    spectra: list[dict[str, Any]] = field(default_factory=list)


class Observer:
    """Watches one trial. ``observe`` is called wherever something may be due; it changes nothing of the trial."""

    def __init__(self, spec: TrialSpec, wanted: Measure, network: Network, data: Data, optimizer: Optimizer,
                 initial: Params, total: int, epoch_steps: float | None) -> None:
        self._spec, self._network, self._data, self._initial = spec, network, data, initial
        self._total, self._epoch_steps = total, epoch_steps
        self._matrices = matrices(network.module)
        self._operators = operators(network.module, data.x_train[:1])
        self._due = {what: steps(getattr(wanted, what), total, wanted.per_decade)
                     for what in GROUPS}
        self._rates = {name: float(getattr(optimizer, name, 0.0)) for name in ("lr", "momentum")}
        self._root = Stream.of(spec.seed, "measure", data.x_train.device)
        self._memory: dict[Any, Any] = {}
        self._began = time.perf_counter()
        self.emitted = Emitted()

    def due(self, taken: int) -> set[str]:
        """What is to be measured after ``taken`` steps."""
        return {what for what, when in self._due.items() if taken in when}

    def observe(self, params: Params, taken: int, loss: Tensor | None, grads: Params | None) -> str | None:
        """Measure what is due after ``taken`` steps, the last of which had this batch loss and gradient.

        Returns ``diverged`` where the training loss is not finite (nothing is emitted then), ``stopped`` where it is
        below the stopping loss before the budget ends, else None.
        """
        losses = evaluate(self._network, params, self._data)
        if not finite(losses["train_loss"]):
            return "diverged"
        stops = (losses["train_loss"] or 0.0) < self._spec.budget["stop_train_loss"] and 0 < taken < self._total
        # Where a trial stops is its last step: what was due then is due now.
        due = self.due(taken) | (self.due(self._total) if stops else set())
        snapshot = Snapshot(self._network, params, self._initial, self._data, taken, self._spec.batch_size,
                            self._rates["lr"], self._rates["momentum"], self._root, self._memory)
        step, layers = measure(snapshot, due)
        if "training" in due or step:
            self._emit_step(params, taken, {**losses, **step}, loss, grads)
        self._emit_layers(params, taken, due, layers)
        return "stopped" if stops else None

    def epochs(self, taken: int) -> float | None:
        """Passes over the training set in ``taken`` steps; None for fresh data."""
        return None if self._epoch_steps is None else taken / self._epoch_steps

    def _emit_step(self, params: Params, taken: int, values: Mapping[str, Any], loss: Tensor | None,
                   grads: Params | None) -> None:
        change = {name: value - self._initial[name] for name, value in params.items()}
        self.emitted.steps.append({
            "step": taken, "epoch": self.epochs(taken), **values,
            "batch_loss": None if loss is None else loss.item(),
            "gradient_norm": None if grads is None else global_norm(grads).item(),
            "weight_norm": global_norm(params).item(),
            "weight_distance": global_norm(change).item(),
            "elapsed": time.perf_counter() - self._began,
        })

    def _emit_layers(self, params: Params, taken: int, due: set[str], layers: dict[str, dict[str, Any]]) -> None:
        """A row for each weight matrix, and for each other layer (a nonlinearity) that something was measured of."""
        rows = {layer: {"kind": "activation", "of": "weight", **values} for layer, values in layers.items()}
        changes = "changes" in due and taken > 0  # before training there is none
        if changes or due & {"weights", "eigenvalues"}:
            initial = self._initial if changes else None
            found, spectra = layer_rows(self._matrices, params, initial, self._operators)
            for row, eigenvalues in zip(found, spectra, strict=True):
                layer = row["layer"]
                if row["of"] == "change" or "weights" in due:
                    rows[layer] = {**rows.get(layer, {}), **row}
                if "eigenvalues" in due and eigenvalues is not None:
                    self.emitted.spectra.append({"step": taken, "layer": layer, "eigenvalues": eigenvalues})
        self.emitted.layers += [{"step": taken, "layer": layer, **row} for layer, row in rows.items()]
