"""Trials per second for trivial trials through the whole path, commit included, beside Ray Tune's own two paths.

All three run the same training code on the same cores in one run: ours as the user runs it (``phasesweep run``), Ray
Tune with a function trainable at its defaults, and Ray Tune with a class trainable and ``reuse_actors=True``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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
    rows = [("phasesweep run", OURS, *_ours(OURS)), ("Ray Tune, reuse_actors=True", REUSE, *_tune(REUSE, True)),
            ("Ray Tune, default", DEFAULT, *_tune(DEFAULT, False))]
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


def _tune(trials: int, reuse: bool) -> tuple[float, float]:
    """(seconds with Ray's start, of ``fit``) of Ray Tune, in a process of its own."""
    began = time.perf_counter()
    quiet = {**os.environ, "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    code = f"from benchmarks.trials_per_second import fit; print('FIT', fit({trials}, {reuse}))"
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True,
                            env=quiet).stdout
    sweep = float(next(line for line in output.splitlines() if line.startswith("FIT")).split()[1])
    return time.perf_counter() - began, sweep


def fit(trials: int, reuse: bool) -> float:
    """Seconds of ``Tuner.fit`` for that many trivial trials."""
    import ray
    from ray import tune

    class Trivial(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.seed = config["seed"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.seed = new_config["seed"]
            return True

        def step(self) -> dict[str, Any]:
            return {**_train(self.seed), "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

    def trivial(config: dict[str, Any]) -> None:
        tune.report(_train(config["seed"]))

    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            Trivial if reuse else trivial, param_space={"seed": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(reuse_actors=reuse), run_config=tune.RunConfig(storage_path=folder, verbose=0))
        began = time.perf_counter()
        tuner.fit()
        took = time.perf_counter() - began
    ray.shutdown()
    return took


def _train(seed: int) -> dict[str, float]:
    import yaml

    from trials.measure import Measure
    from trials.spec import parse_trial
    from trials.trainer import train

    spec = parse_trial({**yaml.safe_load(STUDY)["trial"], "seed": seed})
    return {"train_loss": train(spec, Measure("last", "last", changes="none", eigenvalues="none")).trial["train_loss"]}
