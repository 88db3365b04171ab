"""The schedule in a study: an optional part of a trial, that axes vary as they do an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces import Study, load_study
from trials.errors import UserError
from trials.schedules.cosine import Cosine
from trials.spec import TrialSpec, parse_trial
from trials.spec import make as build

Make = Callable[..., Study]
TRIAL: dict[str, Any] = {"task": "digits", "model": "mlp", "optimizer": "sgd", "budget": {"epochs": 2}}
CONSTANT = {"name": "constant", "warmup": 0.0}


def specs(study: Study) -> list[TrialSpec]:
    return [spec for spec in study.trials(lambda ids: [None for _ in ids]) if spec is not None]


@pytest.mark.parametrize(("trial", "trial_id"), [
    (TRIAL, "46eb1bacea90384fd378"),
    ({**TRIAL, "optimizer": {"name": "adam", "decay": "decoupled"}}, "85b8dc7d2ec566dfee68"),
    ({"task": "digits", "model": {"name": "mlp", "width": 16, "depth": 1}, "budget": {"steps": 100}, "seed": 3,
      "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}, "knobs": {"dropout": {"p": 0.1}, "sam": {}},
      "batch_size": 64}, "60ddfc11ddc62d88d631"),
])
def test_trials_from_before_there_were_schedules_keep_their_ids(trial: dict[str, Any], trial_id: str) -> None:
    assert parse_trial(trial).trial_id == trial_id
    for schedule in (None, "constant", {"name": "constant"}, CONSTANT):
        spec = parse_trial({**trial, "schedule": schedule})
        assert (spec.trial_id, spec.schedule) == (trial_id, CONSTANT)
        assert "schedule" not in spec.config


def test_a_schedule_is_part_of_the_identity() -> None:
    ids = [parse_trial({**TRIAL, "schedule": schedule}).trial_id for schedule in (
        "constant", "cosine", {"name": "cosine", "final": 0.1}, {"name": "cosine", "warmup": 0.1},
        {"name": "constant", "warmup": 0.1}, "one_cycle")]
    assert len(set(ids)) == 6
    assert parse_trial({**TRIAL, "schedule": {"name": "cosine", "final": 0}}).trial_id == ids[1]
    spec = parse_trial({**TRIAL, "schedule": {"name": "cosine", "final": 0.1}})
    assert spec.config["schedule"] == {"name": "cosine", "final": 0.1}
    flat = spec.flat()
    assert [flat[key] for key in ("schedule", "schedule_warmup", "schedule_final")] == ["cosine", 0, 0.1]
    assert build("schedule", spec.schedule) == Cosine(final=0.1)


@pytest.mark.parametrize(("schedule", "key", "path"), [
    (None, "warmup", ("schedule", "warmup")), (None, "schedule.warmup", ("schedule", "warmup")),
    ("cosine", "final", ("schedule", "final")), ({"name": "cosine", "warmup": 0.1}, "schedule.final",
                                                 ("schedule", "final"))])
def test_an_axis_over_a_parameter(make: Make, schedule: object, key: str, path: tuple[str, ...]) -> None:
    study = make(*([f"trial.schedule={schedule}"] if schedule else []), space={key: [0, 0.25]})
    assert [axis.path for axis in study.axes] == [path]
    assert study.axis_columns == ["_".join(path)]
    assert [spec.schedule[path[1]] for spec in specs(study)] == [0.0, 0.25]
    assert len({spec.trial_id for spec in specs(study)}) == 2
    assert str(study.column_types["_".join(path)]) == "double"


@pytest.mark.parametrize("given", [(), ("trial.schedule={name: cosine, warmup: 0.2, final: 0.5}",)])
def test_an_axis_over_the_whole(make: Make, given: tuple[str, ...], tmp_path: Path) -> None:
    study = make(*given, space={"schedule": ["constant", "cosine", {"name": "cosine", "final": 0.1}], "lr": [0.1, 1]})
    warmup, final = (0.2, 0.5) if given else (0.0, 0.0)
    assert [dict(spec.schedule) for spec in specs(study)[::2]] == [
        {"name": "constant", "warmup": warmup}, {"name": "cosine", "warmup": warmup, "final": final},
        {"name": "cosine", "warmup": 0.0, "final": 0.1}]
    assert study.axis_columns[0] == "schedule" and "schedule_final" in study.axis_columns
    again = tmp_path / "again.yaml"
    again.write_text(study.resolved())
    assert [spec.trial_id for spec in specs(load_study(str(again)))] == [spec.trial_id for spec in specs(study)]


def test_a_parameter_goes_into_each_schedule(make: Make) -> None:
    study = make(space={"schedule": ["constant", "one_cycle"], "warmup": [0.0, 0.1], "vector_lr": [0.5]})
    assert [(spec.schedule["name"], spec.schedule["warmup"]) for spec in specs(study)] == [
        ("constant", 0.0), ("constant", 0.1), ("one_cycle", 0.0), ("one_cycle", 0.1)]
    assert specs(study)[0].config["optimizer"]["vector_lr"] == 0.5


@pytest.mark.parametrize(("overrides", "space", "message"), [
    (("trial.schedule=cosin",), {}, "s.yaml: trial.schedule.name: no schedule called 'cosin'; did you mean 'cosine'?"),
    (("trial.schedule=3",), {}, "s.yaml: trial.schedule: expected a mapping of keys to values, got 3"),
    (("trial.schedule=[]",), {}, "s.yaml: trial.schedule: expected a mapping of keys to values, got []"),
    (("trial.schedule={warmup: 0.1}",), {}, "s.yaml: trial.schedule.name: missing; there is: constant, cosine, "),
    (("trial.schedule={name: cosine, finall: 0.1}",), {}, "s.yaml: trial.schedule.finall: no such key; did you mean"),
    (("trial.schedule={name: cosine, warmup: 2}",), {}, "s.yaml: trial.schedule.warmup: expected a number in [0, 1]"),
    (("trial.schedule=a.py:f",), {}, "s.yaml: trial.schedule.name: your own code can be a task or a model, not a sche"),
    (("trial.shedule=cosine",), {}, "s.yaml: trial.shedule: no such key; did you mean 'schedule'?"),
    ((), {"final": [0.1]}, "s.yaml: space.final: no such key in the trial"),
    ((), {"schedule.warmup": [-0.1]}, "s.yaml: space.schedule.warmup.values[0]: expected a number in [0, 1], got -0.1"),
    ((), {"schedule.warmupp": [0.1]}, "space.schedule.warmupp: no such key in the trial; did you mean 'schedule.war"),
    ((), {"schedule": ["constant", "cosin"]}, "space.schedule.values[1]: no schedule called 'cosin'; did you mean"),
    ((), {"schedule": ["constant", "cosine"], "final": [0.1]}, "space.final: schedule 'constant' has no final; remove"),
    ((), {"schedule": ["constant", {"name": "constant"}]}, "space.schedule.values[1]: the same as values[0]"),
    ((), {"schedule": [3]}, "s.yaml: space.schedule.values[0]: expected a mapping of keys to values, got 3"),
    ((), {"schedule": {"low": 0, "high": 1}}, "space.schedule: expected values: [...], each a name or a mapping"),
    (("trial.schedule=step",), {"drops": [1.5]}, "space.drops.values[0]: expected a whole number of at least 0, got"),
])
def test_a_bad_schedule_is_one_line_with_key_and_fix(make: Make, overrides: tuple[str, ...], space: dict[str, Any],
                                                     message: str) -> None:
    with pytest.raises(UserError) as caught:
        make(*overrides, space=space)
    assert message in str(caught.value) and "\n" not in str(caught.value)
