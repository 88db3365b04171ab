from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Range, Study, Values

Make = Callable[..., Study]


@pytest.mark.parametrize(("key", "values", "path"), [
    ("lr", [0.1, 0.2], ("optimizer", "lr")),
    ("optimizer.lr", [0.1], ("optimizer", "lr")),
    ("batch_size", [2, 4], ("batch_size",)),
    ("width", [8], ("model", "width")),
    ("model.width", [8], ("model", "width")),
    ("weight_decay", [0], ("optimizer", "weight_decay")),
    ("epochs", [1.5], ("budget", "epochs")),
    ("budget.epochs", [3], ("budget", "epochs")),
    ("nesterov", [True, False], ("optimizer", "nesterov")),
    ("precision", ["float32", "float64"], ("precision",)),
    ("split_seed", [1], ("task", "split_seed")),
    ("seed", [7, 8], ("seed",)),
    ("dropout.p", [0.1], ("knobs", "dropout", "p")),
    ("knobs.dropout.p", [0.1], ("knobs", "dropout", "p")),
])
def test_a_key_is_a_tail_of_a_path(make: Make, key: str, values: list[object], path: tuple[str, ...]) -> None:
    study = make(space={key: values})
    assert [axis.path for axis in study.axes] == [path]
    specs = list(study.trials(_never))
    assert len(specs) == len(values)
    for spec, value in zip(specs, values, strict=True):
        found: object = spec
        for part in path:
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        assert found == value


def test_the_three_ways_to_write_an_axis_are_the_same(make: Make) -> None:
    listed = {"values": [0.1, 0.2]}
    spaces = [{"dropout.p": [0.1, 0.2]}, {"dropout.p": listed}, {"dropout": {"p": listed}}]
    ids = [[spec.trial_id for spec in make(space=space).trials(_never)] for space in spaces]
    assert ids[0] == ids[1] == ids[2]


def test_a_knob_of_the_base_goes_by_its_parameter_alone(make: Make) -> None:
    study = make("trial.knobs.dropout.p=0.3", space={"p": [0.1, 0.2]})
    assert [axis.path for axis in study.axes] == [("knobs", "dropout", "p")]


def test_an_axis_adds_a_knob_and_a_grid_of_two_knobs_has_both(make: Make) -> None:
    study = make(space={"dropout.p": [0.1], "label_smoothing.a": [0.2, 0.3]})
    assert [dict(spec.knobs) for spec in study.trials(_never)] == [
        {"dropout": {"p": 0.1}, "label_smoothing": {"a": a}} for a in (0.2, 0.3)]
    assert dict(study.base.knobs) == {}


def test_whole_components_by_name_keep_what_the_study_gives_and_they_take(make: Make) -> None:
    study = make(space={"optimizer": ["sgd", "adamw", {"name": "adam", "lr": 0.5}]})
    sgd, adamw, adam = (spec.optimizer for spec in study.trials(_never))
    assert (sgd["name"], sgd["lr"], sgd["momentum"]) == ("sgd", 0.1, 0.9)
    assert (adamw["name"], adamw["lr"], adamw["weight_decay"]) == ("adamw", 0.1, 0.01)  # its own default, not sgd's
    assert (adam["name"], adam["lr"]) == ("adam", 0.5)


def test_a_parameter_axis_goes_into_each_component(make: Make) -> None:
    study = make(space={"lr": [0.1, 0.2], "optimizer": ["sgd", "adam"]})
    assert [(spec.optimizer["lr"], spec.optimizer["name"]) for spec in study.trials(_never)] == [
        (0.1, "sgd"), (0.1, "adam"), (0.2, "sgd"), (0.2, "adam")]


def test_values_come_out_in_the_type_of_their_field(make: Make) -> None:
    study = make(space={"lr": [1, 2], "batch_size": [2.0]})
    for spec in study.trials(_never):
        assert type(spec.optimizer["lr"]) is float and type(spec.batch_size) is int


def test_log_and_linear_grids(make: Make) -> None:
    axes = make(space={"lr": {"low": 1e-4, "high": 1, "num": 5, "scale": "log"},
                       "momentum": {"low": 0, "high": 0.5, "num": 6},
                       "width": {"low": 1, "high": 1000, "num": 4, "scale": "log"}}).axes
    assert [axis.values for axis in axes if isinstance(axis, Values)] == [
        (1e-4, 1e-3, 1e-2, 0.1, 1.0), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (1, 10, 100, 1000)]


def test_a_finer_log_grid_finds_the_old_trials(make: Make) -> None:
    def ids(num: int) -> set[str]:
        study = make(space={"lr": {"low": 1e-3, "high": 1, "num": num, "scale": "log"}})
        return {spec.trial_id for spec in study.trials(_never) if spec is not None}

    assert ids(4) < ids(7) < ids(13) < ids(25)


@given(st.integers(1, 50), st.integers(1, 60), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_ranges_stay_inside(low: int, width: int, log: bool, u: float) -> None:
    whole = Range(("x",), low, low + width, log, True)
    assert low <= whole.at(u) <= low + width and isinstance(whole.at(u), int)
    real = Range(("x",), low / 3, (low + width) / 3, log, False)
    assert real.low <= real.at(u) <= real.high


def test_samples_are_uniform_on_their_scale() -> None:
    us = (np.arange(10_000) + 0.5) / 10_000
    logs = [math.log10(Range(("x",), 1e-4, 1.0, True, False).at(u)) for u in us]
    assert np.histogram(logs, bins=4, range=(-4, 0))[0].tolist() == [2500] * 4
    linear = [Range(("x",), 1, 4, False, True).at(u) for u in us]
    assert np.bincount(linear).tolist() == [0, 2500, 2500, 2500, 2500]
    listed = [Values(("x",), ("a", "b", "c", "d", "e")).at(u) for u in us]
    assert {value: listed.count(value) for value in listed} == dict.fromkeys("abcde", 2000)


def test_replicates_count_up_from_the_seed_of_the_trial(make: Make) -> None:
    study = make(space={"seed": {"replicates": 3}})
    assert study.seeds == (5, 6, 7)
    more = make("space.seed.replicates=4", space={"seed": {"replicates": 3}})
    assert {s.trial_id for s in study.trials(_never)} < {s.trial_id for s in more.trials(_never)}


def _never(trial_ids: list[str]) -> list[object]:
    raise AssertionError("a fixed design looks at no results")
