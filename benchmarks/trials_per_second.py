"""Trials per second for trivial trials through the whole path, commit included, beside Ray Tune's own two paths.

All three run the same training code on the same cores in one run: ours as the user runs it (``phasesweep run``), Ray
Tune with a function trainable at its defaults, and Ray Tune with a class trainable and ``reuse_actors=True``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks._ray_tune import seconds
from trials.measure import Measure
from trials.spec import parse_trial
from trials.trainer import train as train_alone

STUDY = """
study: trivial
question: How fast is a trial that does nothing?
trial:
  task: {name: gaussian_regression, dim: 4, samples: 16}
  model: {name: mlp, depth: 0}
  optimizer: {name: sgd, lr: 0.01}
  budget: {steps: 1}
  batch_size: 4
space:
  seed: {replicates: 1}
measure: {training: last, weights: last, changes: none, eigenvalues: none}
"""
OURS, DEFAULT, REUSE = 4000, 20, 200  # trials of each path: about the same time each


def main() -> None:
    """Measure and print."""
    tune = {kept: seconds("benchmarks.trials_per_second:train", trials, kept)
            for kept, trials in ((True, REUSE), (False, DEFAULT))}
    rows = [("phasesweep run", OURS, *_ours(OURS)), ("Ray Tune, reuse_actors=True", REUSE, *tune[True]),
            ("Ray Tune, default", DEFAULT, *tune[False])]
    print(f"{'path':<30}{'trials':>8}{'command, s':>12}{'sweep, s':>10}{'trials/s':>10}{'ours is':>10}")
    ours = rows[0][1] / rows[0][3]
    for name, trials, command, sweep in rows:
        rate = trials / sweep
        print(f"{name:<30}{trials:>8}{command:>12.1f}{sweep:>10.1f}{rate:>10.1f}{ours / rate:>9.1f}x")
    print("sweep: the command less the same command for one trial (Ray Tune: its fit), so without Ray's own start-up")


def _ours(trials: int) -> tuple[float, float]:
    """(seconds of the command, of the sweep in it): the sweep is the whole minus the same command with one trial."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "trivial.yaml"
        study.write_text(STUDY)

        def command(replicates: int, results: str) -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "orchestrator.cli", "run", str(study),
                            f"space.seed.replicates={replicates}", f"results={Path(folder) / results}"],
                           check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - began
        alone = command(1, "one")
        whole = command(trials, "all")
    return whole, whole - alone


def train(number: int) -> dict[str, Any]:
    """What Ray Tune runs: the same training code."""
    spec = parse_trial({**yaml.safe_load(STUDY)["trial"], "seed": number})
    emitted = train_alone(spec, Measure("last", "last", changes="none", eigenvalues="none"))
    return {"train_loss": emitted.trial["train_loss"]}
