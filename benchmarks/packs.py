"""1,024 small trials (32 learning rates x 32 weight decays of a 64-64-64-10 perceptron on digits, 10 epochs, batch size
32), beside Ray Tune with the same training loop on the same cores in the same run.

``python -m benchmarks.packs [PYTHON]``; a PYTHON with weightwatcher 0.7.7 adds its spectra. Ray Tune trains 2 and then
64 of the trials; the difference says what a trial takes it, the start of its first workers not among it. Ours is the
command as the user runs it, from its start to the last commit.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks._ray_tune import seconds
from benchmarks.spectra import best
from trials.measure import Measure
from trials.packs.lanes import Lanes
from trials.setup import prepare
from trials.spec import TrialSpec, parse_trial
from trials.trainer import train as train_alone

STUDY = """
study: packs
question: How fast is a grid of small trials?
trial:
  task: digits
  model: {name: mlp, width: 64, depth: 2}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  budget: {epochs: 10}
  batch_size: 32
space:
  lr: {low: 0.001, high: 0.3, scale: log, num: 32}
  weight_decay: {low: 0.00001, high: 0.1, scale: log, num: 32}
measure: {training: last, weights: none, changes: none, eigenvalues: none}
"""
TRIALS, FEW, THEIRS = 1024, 2, 64
PEER = """
import contextlib, io, json, logging, sys, time, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
import torch
torch.set_num_threads(1)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    import weightwatcher
    sizes = ((64, 64), (64, 64), (64, 10))
    model = torch.nn.Sequential(*(torch.nn.Linear(*size) for size in sizes))
    watcher = weightwatcher.WeightWatcher(model=model, log_level=logging.CRITICAL)
    start = time.perf_counter()
    for _ in range(3):
        watcher.analyze(plot=False, mp_fit=True)
    took = (time.perf_counter() - start) / 3
print(json.dumps(took))
"""


def main(peer: str | None = None) -> None:
    """Measure and print."""
    _roofline()
    # Ours before, between and after theirs, for a machine is not the same all the time: the middle one counts.
    plain, full, theirs = [], [], []
    for kept in (True, False, None):
        plain.append(_ours("measure.weights=none"))
        if peer is not None:
            full.append(_ours("measure.weights=last"))
        if kept is not None:
            theirs.append(_tune(kept))
    reuse, default = theirs
    _report(statistics.median(plain), statistics.median(full) if full else None, reuse, default, peer)


def _report(plain: float, full: float | None, reuse: float, default: float, peer: str | None) -> None:
    """Print the table of 1,024 trials."""
    print(f"{'1,024 trials':<58}{'s':>9}{'ours is':>10}{'asked':>7}")
    print(f"{'phasesweep run, from the command to the last commit':<58}{plain:>9.1f}")
    print(f"{'Ray Tune, reuse_actors=True':<58}{reuse:>9.0f}{reuse / plain:>9.1f}x{12:>7}")
    print(f"{'Ray Tune, default':<58}{default:>9.0f}{default / plain:>9.1f}x{120:>7}")
    if peer is None or full is None:
        print("weightwatcher: not measured (python -m benchmarks.packs PYTHON, a python with weightwatcher 0.7.7)")
        return
    done = subprocess.run([peer, "-c", PEER], capture_output=True, text=True, check=True)
    watched = reuse + float(json.loads(done.stdout)) * TRIALS / (os.cpu_count() or 1)
    print(f"{'phasesweep run, full set of weight metrics at the end':<58}{full:>9.1f}")
    name = "Ray Tune, reuse_actors=True, and weightwatcher mp_fit=True"
    print(f"{name:<58}{watched:>9.0f}{watched / full:>9.1f}x{30:>7}")


@lru_cache
def _specs(count: int) -> list[TrialSpec]:
    config = yaml.safe_load(STUDY)["trial"]
    rates = torch.logspace(-3, -0.5, count).tolist()
    return [parse_trial({**config, "optimizer": {**config["optimizer"], "lr": rate}}) for rate in rates]


def _roofline() -> None:
    """Print a step's time beside that of its matrix products alone, as bare ``bmm`` of the same shapes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    print(f"{'lanes':>6}{'step, us a lane':>17}{'its bmm alone':>15}{'of the roofline':>17}   one thread")
    for count in (8, 16, 32, 64, 128):
        specs = _specs(count)
        first = prepare(specs[0], "cpu")
        lanes = Lanes([first, *(prepare(spec, "cpu", first) for spec in specs[1:])])
        products = _products(count, specs[0].batch_size)
        took = best({"step": lanes.step, "bmm": lambda pairs=products: [torch.bmm(a, b) for a, b in pairs]}, 200)
        print(f"{count:>6}{took['step'] / count * 1e6:>17.1f}{took['bmm'] / count * 1e6:>15.1f}"
              f"{took['bmm'] / took['step']:>17.0%}")
    torch.set_num_threads(before)


def _products(lanes: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """The factors of every matrix product of a step: forward, to the inputs, to the weights."""
    pairs = []
    for number, (inputs, outputs) in enumerate(((64, 64), (64, 64), (64, 10))):
        x, weight = torch.randn(lanes, batch_size, inputs), torch.randn(lanes, outputs, inputs)
        error = torch.randn(lanes, batch_size, outputs)
        pairs += [(x, weight.mT), (error.mT, x)] + ([(error, weight)] if number else [])
    return pairs


def _ours(*overrides: str) -> float:
    """Seconds from the command to the last commit."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "packs.yaml"
        study.write_text(STUDY)
        began = time.time()
        subprocess.run([sys.executable, "-m", "orchestrator.cli", "run", str(study), f"results={folder}/results",
                        *overrides], check=True, stdout=subprocess.DEVNULL)
        return max(path.stat().st_mtime for path in Path(folder, "results", "trials").iterdir()) - began


def _tune(kept: bool) -> float:
    """Seconds of Ray Tune's fit of all trials, from those of some."""
    few, some = (seconds("benchmarks.packs:train", trials, kept)[1] for trials in (FEW, THEIRS))
    return few + (some - few) / (THEIRS - FEW) * (TRIALS - FEW)


def train(number: int) -> dict[str, Any]:
    """What Ray Tune runs: the same training loop, by itself."""
    torch.set_num_threads(1)
    emitted = train_alone(_specs(THEIRS)[number], Measure("last", weights="none", changes="none", eigenvalues="none"))
    return {"train_loss": emitted.trial["train_loss"]}


if __name__ == "__main__":
    main(*sys.argv[1:2])
