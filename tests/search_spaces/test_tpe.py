from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from search_spaces import Study
from trials.errors import UserError
from trials.spec import TrialSpec

Make = Callable[..., Study]
SPACE = {"lr": {"low": 1e-4, "high": 1, "scale": "log"}, "width": {"low": 4, "high": 64},
         "dropout.p": [0.0, 0.2, 0.4], "optimizer": ["sgd", "adam"], "seed": {"replicates": 2}}
DESIGN = {"name": "tpe", "trials": 22, "batch": 6}


def loss(spec: TrialSpec) -> dict[str, Any]:
    """A made-up result: best at lr 0.01, dropout 0.2, sgd; the seed adds a little."""
    lr = math.log10(spec.optimizer["lr"])
    if lr > -1:
        return {"status": "diverged", "test_loss": None}
    value = (lr + 2) ** 2 + 10 * (spec.knobs["dropout"]["p"] - 0.2) ** 2 + (spec.optimizer["name"] == "adam")
    return {"status": "completed", "test_loss": value + 0.01 * spec.seed, "test_accuracy": -value}


class Store:
    """Committed rows by trial id; ``commit`` may stop early, as a crash would."""

    def __init__(self) -> None:
        self.rows: dict[str, Mapping[str, Any]] = {}

    def observe(self, trial_ids: list[str]) -> list[Mapping[str, Any] | None]:
        return [self.rows.get(trial_id) for trial_id in trial_ids]


def run(study: Study, store: Store, limit: int = 10**6,
        result: Callable[[TrialSpec], dict[str, Any]] = loss) -> list[TrialSpec]:
    """Run what the store lacks, at most ``limit`` trials, newest first. Returns the design's trials so far."""
    given: list[TrialSpec] = []
    pending: list[TrialSpec] = []
    stream: Iterator[TrialSpec | None] = study.trials(store.observe)
    for spec in stream:
        if spec is not None:
            given.append(spec)
            if spec.trial_id not in store.rows:
                pending.append(spec)
            continue
        while pending and limit:  # a straggler of any kind comes back in any order
            done = pending.pop()
            store.rows[done.trial_id] = result(done)
            limit -= 1
        if not limit:
            return given
    for done in pending[:limit]:
        store.rows[done.trial_id] = result(done)
    return given


def test_an_interrupted_run_replays_to_the_same_trials(make: Make) -> None:
    study = make(space=SPACE, design=DESIGN)
    whole = Store()
    expected = [spec.trial_id for spec in run(study, whole)]
    assert len(set(expected)) == study.size == 44 == len(whole.rows)
    for interrupted_after in range(1, 45):
        store = Store()
        seen = [spec.trial_id for spec in run(make(space=SPACE, design=DESIGN), store, interrupted_after)]
        assert seen == expected[:len(seen)]
        assert len(store.rows) == interrupted_after
        again = [spec.trial_id for spec in run(make(space=SPACE, design=DESIGN), store)]
        assert again == expected
        assert store.rows == whole.rows


def test_a_batch_waits_for_all_replicates_of_the_one_before(make: Make) -> None:
    store = Store()
    stream = make(space=SPACE, design=DESIGN).trials(store.observe)
    batch = [next(stream) for _ in range(12)]
    assert [spec.seed for spec in batch if spec] == [5] * 6 + [6] * 6
    for spec in batch:
        assert next(stream) is None
        assert spec is not None
        store.rows[spec.trial_id] = loss(spec)
    assert next(stream) is not None


def test_it_finds_the_optimum_better_than_random_search(make: Make) -> None:
    def best(design: dict[str, Any]) -> float:
        values = (loss(spec)["test_loss"] for spec in run(make(space=SPACE, design=design), Store()))
        return sum(sorted(value for value in values if value is not None)[:10])

    assert best({"name": "tpe", "trials": 48, "batch": 4}) < best({"name": "random", "trials": 48}) / 3


def test_mode_max_climbs(make: Make) -> None:
    design = {**DESIGN, "trials": 48, "metric": "test_accuracy", "mode": "max"}
    specs = run(make(space=SPACE, design=design), Store())
    scores = [loss(spec)["test_accuracy"] for spec in specs if loss(spec)["status"] == "completed"]
    assert sum(scores[-20:]) / 20 > sum(scores[:20]) / 20


def test_the_objective_is_the_mean_over_replicates(make: Make) -> None:
    def swapped(spec: TrialSpec) -> dict[str, Any]:
        return {**loss(spec), "test_loss": (loss(spec)["test_loss"] or 0) + (1 if spec.seed == 5 else -1) * 50}

    def cancelled(spec: TrialSpec) -> dict[str, Any]:
        return {**loss(spec), "test_loss": loss(spec)["test_loss"] or 0}

    study = make(space=SPACE, design=DESIGN)
    ids = [[spec.trial_id for spec in run(study, Store(), result=result)] for result in (swapped, cancelled)]
    assert ids[0] == ids[1]


def test_diverged_counts_as_the_worst_seen(make: Make) -> None:
    def as_worst(spec: TrialSpec) -> dict[str, Any]:
        row = loss(spec)
        return row if row["status"] == "completed" else {"status": "completed", "test_loss": worst}

    study = make(space=SPACE, design={**DESIGN, "trials": 30, "batch": 15})  # a batch, and the answer to it
    first = run(study, Store(), 1)
    rows = [loss(spec) for spec in first]
    assert {row["status"] for row in rows} == {"diverged", "completed"}
    by_point = [(rows[i], rows[i + 15]) for i in range(15)]
    worst = max((a["test_loss"] + b["test_loss"]) / 2 for a, b in by_point if a["status"] == "completed")
    assert run(study, Store()) == run(study, Store(), result=as_worst)
    worst = 0.0
    assert run(study, Store()) != run(study, Store(), result=as_worst)


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_a_study_in_which_nothing_succeeds_still_ends(make: Make, status: str) -> None:
    study = make(space=SPACE, design=DESIGN)
    specs = run(study, Store(), result=lambda spec: {"status": status, "test_loss": None})
    assert len({spec.trial_id for spec in specs}) == study.size


def test_a_nan_metric_is_a_divergence(make: Make) -> None:
    def nan(spec: TrialSpec) -> dict[str, Any]:
        row = loss(spec)
        return row if row["status"] == "completed" else {"status": "completed", "test_loss": math.nan}

    study = make(space=SPACE, design=DESIGN)
    assert run(study, Store()) == run(study, Store(), result=nan)


def test_failed_replicates_are_left_out(make: Make) -> None:
    def one_failed(spec: TrialSpec) -> dict[str, Any]:
        return {"status": "failed"} if spec.seed == 5 else alone(spec)

    def alone(spec: TrialSpec) -> dict[str, Any]:
        return {"status": "completed", "test_loss": (loss(spec)["test_loss"] or 9) - 0.01 * spec.seed}

    study = make(space=SPACE, design=DESIGN)
    assert run(study, Store(), result=one_failed) == run(study, Store(), result=alone)


def test_a_finite_space_is_exhausted(make: Make) -> None:
    space = {"dropout.p": [0.0, 0.1, 0.2], "precision": ["float32", "float64"], "batch_size": {"low": 2, "high": 4}}
    specs = run(make(space=space, design={"name": "tpe", "trials": 18, "batch": 4}), Store())
    assert len({spec.trial_id for spec in specs}) == 18


def test_raising_trials_keeps_the_first(make: Make) -> None:
    short, long = ([spec.trial_id for spec in run(make(f"design.trials={n}", "space.seed.replicates=1", space=SPACE,
                                                       design=DESIGN), Store())] for n in (15, 22))
    assert long[:15] == short


def test_an_empty_metric_is_an_error(make: Make) -> None:
    study = make(space=SPACE, design={**DESIGN, "metric": "train_accuracy"})
    with pytest.raises(UserError, match=r"design\.metric: train_accuracy is empty .* choose another"):
        run(study, Store(), result=lambda spec: {"status": "completed", "train_accuracy": None})
