from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from search_spaces import DESIGNS, Range, Study, Values
from search_spaces.axes import Axis

Make = Callable[..., Study]
SAMPLED = ["random", "sobol"]
CONTINUOUS: list[Axis] = [Range(("lr",), 1e-4, 1.0, True, False), Range(("momentum",), 0.0, 0.9, False, False)]
FINITE: list[Axis] = [Range(("width",), 1, 6, True, True), Values(("precision",), ("float32", "float64")),
                      Values(("model",), ({"name": "a"}, {"name": "b"}, {"name": "c"}))]


def points(name: str, axes: Sequence[Axis], seeds: Sequence[int] = (0,), **params: Any) -> list[Any]:
    design = DESIGNS.get(name, "design.name")(**params)
    design.check(axes)
    return list(design.stream(axes, seeds, lambda pairs: pytest.fail("a fixed design looks at no results")))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True), max_size=4),
       st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
def test_a_grid_has_every_combination_once_with_seeds_outermost(values: list[list[int]], seeds: list[int]) -> None:
    axes = [Values((f"x{i}",), tuple(listed)) for i, listed in enumerate(values)]
    given_points = points("grid", axes, seeds)
    combinations = list(itertools.product(*values))
    assert given_points == [(point, seed) for seed in seeds for point in combinations]
    assert DESIGNS.classes["grid"]().size(axes) == len(combinations)
    assert max(Counter(given_points).values()) == 1


def test_a_study_of_a_grid_is_exact(make: Make) -> None:
    study = make(space={"seed": {"replicates": 2}, "lr": [0.1, 0.2, 0.3], "batch_size": [4, 8]})
    specs = list(study.trials(lambda ids: []))
    assert [(s.seed, s.optimizer["lr"], s.batch_size) for s in specs if s] == list(
        itertools.product([5, 6], [0.1, 0.2, 0.3], [4, 8]))
    assert study.size == len({s.trial_id for s in specs if s}) == 12


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("axes", [CONTINUOUS, FINITE, [*CONTINUOUS, *FINITE]])
def test_raising_trials_keeps_the_first_points(name: str, axes: list[Axis]) -> None:
    longest = points(name, axes, trials=36, seed=3)
    for n in (1, 7, 20, 35):
        assert points(name, axes, trials=n, seed=3) == longest[:n]
    assert points(name, axes, trials=36, seed=4) != longest


@pytest.mark.parametrize("name", SAMPLED)
def test_prefixes_hold_across_chunks(name: str) -> None:
    assert points(name, CONTINUOUS, trials=3000)[:1500] == points(name, CONTINUOUS, trials=1500)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_finite_space_is_exhausted_without_repetition(name: str) -> None:
    listed = [repr(point) for point, _ in points(name, FINITE, trials=36)]
    assert len(set(listed)) == 36


@pytest.mark.parametrize("name", SAMPLED)
def test_replicates_are_outermost_and_share_points(name: str) -> None:
    pairs = points(name, CONTINUOUS, seeds=(4, 5), trials=10)
    assert [seed for _, seed in pairs] == [4] * 10 + [5] * 10
    assert [p for p, _ in pairs[:10]] == [p for p, _ in pairs[10:]]


def test_sobol_fills_space_more_evenly_than_random() -> None:
    axes: list[Axis] = [Range((f"x{i}",), 0.0, 1.0, False, False) for i in range(3)]
    random, sobol = (np.array([point for point, _ in points(name, axes, trials=256)]) for name in SAMPLED)
    assert qmc.discrepancy(sobol) < qmc.discrepancy(random) / 5


def test_one_point_in_every_cell_of_an_elementary_interval() -> None:
    axes: list[Axis] = [Range((f"x{i}",), 0.0, 1.0, False, False) for i in range(2)]
    cells = {(int(x * 8), int(y * 8)) for (x, y), _ in points("sobol", axes, trials=64)}
    assert len(cells) == 64  # 64 points of a (0, 6, 2)-net


def test_a_big_study_is_sized_at_once(make: Make) -> None:
    grid = {"low": 0.001, "high": 0.5, "num": 1000}
    study = make(space={"lr": grid, "momentum": grid, "weight_decay": grid, "seed": {"replicates": 1000}})
    assert study.size == 10**12
    first = list(itertools.islice(study.trials(lambda ids: []), 3))
    assert [s.optimizer["weight_decay"] for s in first if s] == [0.001, 0.0014994994995, 0.001998998999]


def test_specs_of_a_stream_equal_parsed_ones(make: Make) -> None:
    from trials.spec import parse_trial

    study = make(space={"optimizer": ["sgd", "adam"], "lr": [1, 0.1], "dropout.p": [0.5], "seed": [1]})
    for spec in study.trials(lambda ids: []):
        assert spec is not None
        config = {**{k: v for k, v in spec.config.items() if not k.startswith("knobs.") and k != "trial"},
                  **spec.config["trial"], "knobs": {"dropout": spec.config["knobs.dropout"]}}
        assert parse_trial(config) == spec
        assert parse_trial(config).trial_id == spec.trial_id
