"""How long a study will take here: a few steps and one measurement are timed, the rest is arithmetic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from cluster import local_cpus
from orchestrator.lane_count import Choice, choose
from search_spaces import Study
from trials.measure import GROUPS, Measure, steps
from trials.setup import build_network, load_data
from trials.spec import TrialSpec
from trials.trainer import train


@dataclass(frozen=True)
class Estimate:
    """``step`` + ``sample`` x batch size seconds an optimizer step and trial; ``packs``: how trials with the smallest
    and with the largest batch will be trained; ``measuring``: seconds each time, by the words of the ``measure:`` block
    that are on; ``bytes`` of memory a worker needs beside its imports."""

    step: float
    sample: float
    packs: tuple[Choice, Choice]
    measuring: Mapping[str, float]
    bytes: int

    def trial_seconds(self, total: int, batch_size: int, measure: Measure) -> float:
        """Seconds for a trial of ``total`` steps."""
        measuring = sum(seconds * len(steps(getattr(measure, what), total, measure.per_decade))
                        for what, seconds in self.measuring.items())
        return (self.step + self.sample * batch_size) * total + measuring


def estimate(study: Study, small: TrialSpec, large: TrialSpec, available: int) -> Estimate:
    """Time the trials with the smallest and the largest batch for a moment, in this process and without Ray; about
    ``available`` trials of a batch size are to be trained."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(int(study.resources.cpu), local_cpus())))  # the study may be for larger machines
    try:
        device = "cuda" if study.device != "cpu" and torch.cuda.is_available() else "cpu"
        packs = (choose(small, device, available, study.lanes), choose(large, device, available, study.lanes))
        small_seconds, large_seconds = (choice.seconds for choice in packs)
        wanted = [what for what in GROUPS if getattr(study.measure, what) != "none"]
        if "weights" in wanted and "eigenvalues" in wanted:  # one eigensolve gives both
            wanted.remove("eigenvalues")
        measuring = {what: _measure_seconds(small, what) for what in wanted}
    finally:
        torch.set_num_threads(threads)
    apart = large.batch_size - small.batch_size
    sample = max(0.0, (large_seconds - small_seconds) / apart) if apart else 0.0
    data = load_data(small)
    parameters = sum(value.nbytes for value in build_network(small, data).module.parameters())
    # weights, initial weights, gradient, at most two optimizer slots and a temporary, for each lane
    held = 6 * parameters * max(choice.lanes for choice in packs)
    held += sum(x.nbytes for x in (data.x_train, data.y_train, data.x_test, data.y_test))
    return Estimate(max(1e-6, small_seconds - sample * small.batch_size), sample, packs, measuring, held)


def _measure_seconds(spec: TrialSpec, what: str) -> float:
    """Seconds one measurement of ``what`` takes: a trial that makes two of them less one that makes one, after a first
    that warms up."""
    short = replace(spec, budget={"steps": 2, "epochs": 0.0, "stop_train_loss": 0.0})
    nothing = dict.fromkeys(GROUPS, "none")

    def run(when: str) -> float:
        began = time.perf_counter()
        train(short, Measure(per_decade=1, **{**nothing, "training": "last", what: when}))
        return time.perf_counter() - began
    run("last")
    return max(0.0, run("ends") - run("last"))
