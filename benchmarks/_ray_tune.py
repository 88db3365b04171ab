"""Plain Ray Tune, the peer of several benchmarks: its default, and with actors that are kept from trial to trial."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Train = Callable[[int], dict[str, Any]]  # number of the trial -> what it reports


def seconds(train: str, trials: int, reuse: bool) -> tuple[float, float]:
    """(of a process that starts Ray and fits, of ``Tuner.fit`` in it) for trials by ``train``, "module:function"."""
    quiet = {**os.environ, "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    code = f"from benchmarks._ray_tune import fit; print('FIT', fit({train!r}, {trials}, {reuse}))"
    began = time.perf_counter()
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True,
                            env=quiet).stdout
    fitted = float(next(line for line in output.splitlines() if line.startswith("FIT")).split()[1])
    return time.perf_counter() - began, fitted


def fit(name: str, trials: int, reuse: bool) -> float:
    """Seconds of ``Tuner.fit``."""
    import ray
    from ray import tune

    module, _, function = name.partition(":")
    train: Train = getattr(importlib.import_module(module), function)

    class Each(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.number = config["number"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.number = new_config["number"]
            return True

        def step(self) -> dict[str, Any]:
            return {**train(self.number), "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

    def each(config: dict[str, Any]) -> None:
        tune.report(train(config["number"]))

    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            Each if reuse else each, param_space={"number": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(reuse_actors=reuse), run_config=tune.RunConfig(storage_path=folder, verbose=0))
        began = time.perf_counter()
        tuner.fit()
        took = time.perf_counter() - began
    ray.shutdown()
    return took
