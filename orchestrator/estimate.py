"""How long a study will take here: a few steps and one measurement are timed, the rest is arithmetic."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from search_spaces import Study
from trials.measure import Measure, steps
from trials.spec import TrialSpec
from trials.trainer import build_network, load_data, train

STEPS = 30  # timed for each of two batch sizes


@dataclass(frozen=True)
class Estimate:
    """``step`` + ``sample`` x batch size seconds an optimizer step, ``measurement`` seconds each time all is measured;
    ``bytes`` of memory a worker needs beside its imports."""

    step: float
    sample: float
    measurement: float
    bytes: int

    def trial_seconds(self, total: int, batch_size: int, measure: Measure) -> float:
        """Seconds for a trial of ``total`` steps."""
        times = [steps(when, total, measure.per_decade) for when in (measure.training, measure.weights)]
        return (self.step + self.sample * batch_size) * total + self.measurement * len(set.union(*times))


def estimate(study: Study, small: TrialSpec, large: TrialSpec) -> Estimate:
    """Time the trials with the smallest and the largest batch for a moment, in this process and without Ray."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(study.resources.cpu)))
    try:
        small_seconds, large_seconds = _step_seconds(small), _step_seconds(large)
        measurement = _measure_seconds(small, study.measure)
    finally:
        torch.set_num_threads(threads)
    apart = large.batch_size - small.batch_size
    sample = max(0.0, (large_seconds - small_seconds) / apart) if apart else 0.0
    data = load_data(small)
    parameters = sum(value.nbytes for value in build_network(small, data).parameters().values())
    # weights, initial weights, gradient and at most two optimizer slots
    held = 5 * parameters + sum(x.nbytes for x in (data.x_train, data.y_train, data.x_test, data.y_test))
    return Estimate(max(1e-6, small_seconds - sample * small.batch_size), sample, measurement, held)


def _step_seconds(spec: TrialSpec) -> float:
    """Seconds an optimizer step of ``spec``, without measurements, warmed up by a first short run."""
    def run(count: int) -> float:
        short = replace(spec, budget={"steps": count, "epochs": 0.0, "stop_train_loss": 0.0})
        began = time.perf_counter()
        train(short, Measure("last", "none", "none"))
        return time.perf_counter() - began
    run(2)
    few = run(2)
    return max(1e-6, (run(2 + STEPS) - few) / STEPS)


def _measure_seconds(spec: TrialSpec, measure: Measure) -> float:
    """Seconds one measurement takes: the trials' own losses and, if the study has them, the weights' spectra."""
    def run(when: str) -> float:
        short = replace(spec, budget={"steps": 2, "epochs": 0.0, "stop_train_loss": 0.0})
        began = time.perf_counter()
        train(short, Measure(when, when if measure.weights != "none" else "none", "none", 100))
        return time.perf_counter() - began
    run("last")
    return max(0.0, run("ends") - run("last"))
