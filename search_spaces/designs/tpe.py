"""Tree-structured Parzen estimator, a batch at a time."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from search_spaces.axes import Axis, Range, Values, tidy
from search_spaces.designs.base import DESIGNS, Design, Pair, Point, Results
from search_spaces.designs.sampled import check_trials
from trials.errors import UserError
from trials.fields import choice, count
from trials.records import COLUMNS
from trials.streams import derive

METRICS = tuple(column.name for column in COLUMNS["trials"] if pa.types.is_floating(column.type))
ATTEMPTS = 100  # suggestions of points already tried, after which a random new one is taken

Coordinates = tuple[float, ...]  # a point as optuna sees it
Told = tuple[Coordinates, float | None]  # with its score: NaN if diverged, None if failed


@DESIGNS.register("tpe")
@dataclass(frozen=True)
class TPE(Design):
    """Bayesian optimization by density ratios (Bergstra et al. 2011), optuna's multivariate sampler with constant liar.

    Batch b comes from a fresh sampler, seeded by (seed, b), that is told the results of the batches before it. So the
    design has no state of its own: replayed over the same results, it gives the same trials. The objective is the mean
    of ``metric`` over the replicates of a point. A point of which a replicate diverged counts as the worst seen so far;
    failed replicates are left out, and a point with no other is told to optuna as failed.
    """

    trials: int = count(64, low=1, help="number of points; each is tried with every seed")
    batch: int = count(8, low=1, help="points suggested at a time, which may run side by side")
    metric: str = choice("test_loss", METRICS, help="column of the trials table to optimize")
    mode: str = choice("min", ("min", "max"), help="whether the metric is to be small or large")
    seed: int = count(0, help="seed of the suggestions, apart from the seeds of the trials")

    def check(self, axes: Sequence[Axis]) -> None:
        check_trials(self.trials, axes)

    def size(self, axes: Sequence[Axis]) -> int:
        return self.trials

    def stream(self, axes: Sequence[Axis], seeds: Sequence[int], results: Results) -> Iterator[Pair | None]:
        told: list[Told] = []
        while True:
            batch = self._suggest(axes, told, min(self.batch, self.trials - len(told)))
            pairs = [(_point(axes, coordinates), seed) for seed in seeds for coordinates in batch]
            yield from pairs
            if len(told) + len(batch) == self.trials:
                return
            while None in (rows := results(pairs)):
                yield None
            told += [(coordinates, self._score([row for row in rows[i :: len(batch)] if row is not None]))
                     for i, coordinates in enumerate(batch)]

    def _score(self, replicates: Sequence[Mapping[str, Any]]) -> float | None:
        scores = []
        for row in replicates:
            if row["status"] == "failed":
                continue
            value = math.nan if row["status"] == "diverged" else row[self.metric]
            if value is None:
                raise UserError(f"design.metric: {self.metric} is empty for a trial that {row['status']}; this task "
                                "does not have it, choose another")
            scores.append(value if math.isfinite(value) else math.nan)
        return statistics.fmean(scores) if scores else None

    def _suggest(self, axes: Sequence[Axis], told: Sequence[Told], number: int) -> list[Coordinates]:
        """``number`` new points."""
        import optuna  # a fifth of a second that other designs need not wait

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = derive(self.seed, "tpe", len(told) // self.batch) % 2**32
        with warnings.catch_warnings():  # older versions call these two options experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        study = optuna.create_study(direction="minimize" if self.mode == "min" else "maximize", sampler=sampler)
        space = {".".join(axis.path): _distribution(axis) for axis in axes}
        seen_scores = [score for _, score in told if score is not None and not math.isnan(score)]
        worst = (max if self.mode == "min" else min)(seen_scores, default=None)
        for coordinates, score in told:
            value = worst if score is not None and math.isnan(score) else score
            study.add_trial(optuna.trial.create_trial(
                params=dict(zip(space, coordinates, strict=True)), distributions=space, value=value,
                state=optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE))

        seen = {coordinates for coordinates, _ in told}
        fallback = np.random.default_rng(seed)
        batch: list[Coordinates] = []
        attempts = 0
        while len(batch) < number:
            attempts += 1
            if attempts <= ATTEMPTS:
                params = study.ask(space).params
                coordinates = tuple(_tidied(axis, params[name]) for axis, name in zip(axes, space, strict=True))
            else:
                coordinates = tuple(_anywhere(axis, fallback.random()) for axis in axes)
            if coordinates not in seen:
                seen.add(coordinates)
                batch.append(coordinates)
                attempts = 0
        return batch


def _ordered(axis: Values) -> list[Any]:
    """The values, in increasing order if they are numbers."""
    return sorted(axis.values) if _is_numeric(axis) else list(axis.values)


def _is_numeric(axis: Values) -> bool:
    return all(isinstance(value, (int, float)) for value in axis.values)


def _distribution(axis: Axis) -> Any:
    """Numbers are their rank among the values, other values a category, a range itself."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Values):
        return IntDistribution(0, axis.size - 1) if _is_numeric(axis) else CategoricalDistribution(range(axis.size))
    if axis.integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _tidied(axis: Axis, value: Any) -> float:
    if isinstance(axis, Range) and not axis.integer:
        return min(max(tidy(value), axis.low), axis.high)
    return int(value)


def _anywhere(axis: Axis, u: float) -> float:
    return int(u * axis.size) if isinstance(axis, Values) else axis.at(u)


def _point(axes: Sequence[Axis], coordinates: Coordinates) -> Point:
    return tuple(_ordered(axis)[int(value)] if isinstance(axis, Values) else value
                 for axis, value in zip(axes, coordinates, strict=True))
