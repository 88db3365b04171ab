"""Calibration of claims about phases: how often labels drawn at random pass for a walk, and a true walk is found.

Along an axis four phases stand in order over 5 to 10 values, each label moved to a neighbouring phase by chance; in
training each run goes through them at steps of its own, or changes at random, or back and forth as often as not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.laws.walk import Walk, walk, walk_in_training
from analysis.phase_names import PHASES

Array = npt.NDArray[np.intp]
REPEATS = 200
ORDER = PHASES[:4]
STEPS = 20


def answer(fit: Walk) -> str:
    """What a claim without ``visits`` says of it."""
    estimate = fit.estimates["rank_correlation"]
    if np.isnan(estimate.value) or estimate.high < 0:
        return "fails"
    return "holds" if estimate.low > 0 and not fit.backward else "undecided"


def along(places: Array) -> Walk:
    """The walk of labels (values of x, replicates)."""
    count, replicates = places.shape
    return walk(pd.DataFrame({"x": np.repeat(2.0 ** np.arange(count), replicates),
                              "phase": [ORDER[place] for place in places.ravel()]}), "x", ORDER)


def by_chance(rng: np.random.Generator, values: int, replicates: int, shares: tuple[float, ...]) -> Walk:
    """Labels that have nothing to do with x."""
    return along(rng.choice(len(shares), size=(values, replicates), p=shares))


def true_walk(rng: np.random.Generator, values: int, replicates: int, noise: float) -> Walk:
    """Phases in order, each label moved by one with probability ``noise``."""
    places = np.repeat(np.floor(np.linspace(0, 3.99, values)).astype(int)[:, None], replicates, axis=1)
    moved = np.clip(places + rng.choice([-1, 1], size=places.shape), 0, 3)
    return along(np.where(rng.random(places.shape) < noise, moved, places))


def in_training(rng: np.random.Generator, runs: int, kind: str) -> Walk:
    """Runs that go through the phases at steps of their own, have random labels, or make a random walk."""
    if kind == "in order":
        places = (np.arange(STEPS)[None, :, None] >= rng.integers(1, STEPS, size=(runs, 1, 3))).sum(2)
    elif kind == "random labels":
        places = rng.integers(0, 4, size=(runs, STEPS))
    else:
        places = np.empty((runs, STEPS), int)
        places[:, 0] = rng.integers(0, 4, size=runs)
        for step in range(1, STEPS):
            places[:, step] = np.clip(places[:, step - 1] + rng.choice([-1, 0, 1], size=runs, p=[0.2, 0.6, 0.2]), 0, 3)
    return walk_in_training(pd.DataFrame({
        "trial_id": np.repeat(np.arange(runs), STEPS), "configuration": np.repeat(np.arange(runs), STEPS),
        "step": np.tile(np.arange(STEPS), runs), "phase": [ORDER[place] for place in places.ravel()]}), ORDER)


def line(name: str, setting: str, simulate: Callable[[np.random.Generator], Walk]) -> None:
    """Simulate, and print a row."""
    rng = np.random.default_rng(0)
    found = [answer(simulate(rng)) for _ in range(REPEATS)]
    shares = "".join(f"{found.count(each) / REPEATS:>11.1%}" for each in ("holds", "fails", "undecided"))
    print(f"{name:<28}{setting:<36}{REPEATS:>8}{shares}", flush=True)


def main() -> None:
    """Print the table."""
    print(f"{'':<28}{'':<36}{'repeats':>8}{'holds':>11}{'fails':>11}{'undecided':>11}")
    for values, replicates, shares in ((5, 2, (0.4, 0.3, 0.2, 0.1)), (6, 3, (0.25,) * 4), (10, 1, (0.4, 0.3, 0.2, 0.1)),
                                       (10, 3, (0.4, 0.3, 0.2, 0.1)), (10, 5, (0.7, 0.1, 0.1, 0.1))):
        line("labels by chance", f"{values} values, {replicates} replicates, most {max(shares):.0%}",
             partial(by_chance, values=values, replicates=replicates, shares=shares))
    for values, replicates, noise in ((6, 2, 0.1), (6, 5, 0.2), (10, 2, 0.1), (10, 3, 0.2), (10, 5, 0.3)):
        line("a walk", f"{values} values, {replicates} replicates, {noise:.0%} moved",
             partial(true_walk, values=values, replicates=replicates, noise=noise))
    for kind in ("random labels", "back and forth", "in order"):
        for runs in (6, 20):
            line(f"in training, {kind}", f"{runs} runs of {STEPS} steps", partial(in_training, runs=runs, kind=kind))


if __name__ == "__main__":
    main()
