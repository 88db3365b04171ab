"""Trials of the models in ``zoo``, and a plain training loop that shares nothing with ours but the batches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trials.batches import Batches
from trials.packs.lanes import Lanes
from trials.setup import load_data, prepare
from trials.spec import TrialSpec, parse_trial
from trials.streams import derive
from trials.trainer import Alone

torch.set_num_threads(1)
ZOO = Path(__file__).with_name("zoo.py")


def trial(kind: str = "batch_norm", seed: int = 0, steps: int = 40, function: str = "net", **changes: Any) -> TrialSpec:
    model = {"name": f"{ZOO}:{function}", **({"kind": kind} if function == "net" else {})}
    return parse_trial({
        "task": "digits", "model": model, "optimizer": {"name": "sgd", "lr": 0.02 * (1 + seed), "momentum": 0.5},
        "budget": {"steps": steps}, "batch_size": 8, "precision": "float64", "seed": seed, **changes})


def plainly(spec: TrialSpec, module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> nn.Module:
    """``module`` after so many steps of a loop as one writes it by hand."""
    data = load_data(spec)
    batches = Batches(data, spec.batch_size, spec.seed)
    module.train()
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(batches[step].x_B), batches[step].target_BC).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module


def built(spec: TrialSpec, function: Any, *args: Any) -> nn.Module:
    torch.manual_seed(derive(spec.seed, "init"))
    module: nn.Module = function((1, 8, 8), 10, *args)
    return module.double()


def alone(spec: TrialSpec, steps: int) -> Alone:
    found = Alone(prepare(spec, "cpu"))
    for _ in range(steps):
        found.take()
    return found


def packed(specs: Iterable[TrialSpec], steps: int) -> Lanes:
    first, *others = specs
    trial = prepare(first, "cpu")
    lanes = Lanes([trial, *(prepare(spec, "cpu", trial) for spec in others)])
    for _ in range(steps):
        lanes.step()
    return lanes


def apart(lanes: Lanes, lane: int, found: Alone) -> float:
    """Largest relative distance of a parameter or buffer of a lane from that of the trial alone."""
    pairs = [(mine[name][lane].double(), value.double())
             for mine, theirs in ((lanes.params, found.params), (lanes.buffers, found.buffers))
             for name, value in theirs.items()]
    return max(float((mine - value).norm() / value.norm().clamp(min=1e-300)) for mine, value in pairs)
