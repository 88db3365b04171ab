from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from search_spaces import Study, list_studies, load_study
from trials.errors import UserError
from trials.setup import build_network, load_data
from trials.spec import TrialSpec

Make = Callable[..., Study]


def specs(study: Study) -> list[TrialSpec]:
    return [spec for spec in study.trials(lambda ids: [{"status": "diverged"} for _ in ids]) if spec is not None]


@pytest.mark.parametrize("name", sorted(list_studies()))
def test_bundled_studies(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    assert study.name == name and study.question.endswith("?") and study.source
    ids = [spec.trial_id for spec in specs(study)]
    assert len(set(ids)) == len(ids) == study.size
    again = tmp_path / "again.yaml"
    again.write_text(study.resolved())
    loaded = load_study(str(again))
    assert [spec.trial_id for spec in specs(loaded)] == ids
    assert loaded.resolved() == study.resolved()
    assert (loaded.column_types, loaded.axis_columns) == (study.column_types, study.axis_columns)


def test_the_first_study_is_the_one_asked_for() -> None:
    study = load_study("batch_size_phases")
    assert study.size == 30 and study.axis_columns == ["batch_size", "seed"]
    found = {(spec.batch_size, spec.seed) for spec in specs(study)}
    assert found == set(itertools.product([2, 4, 8, 16, 32, 64, 128, 256, 512, 1000], [0, 1, 2]))
    assert {(spec.model["width"], spec.model["depth"], spec.model["init"]) for spec in specs(study)} == {
        (512, 3, "glorot_normal")}


def test_trial_ids_are_stable() -> None:
    """Results on disk are found by these: if one changes, every study runs again from the start."""
    study = load_study("tune_knobs", ["design={name: grid}", "space={lr: [0.1], dropout.p: [0.25], seed: [3]}"])
    spec, = specs(study)
    assert spec.canonical == (
        '{"budget":{"epochs":20.0},"knobs.dropout":{"p":0.25},"knobs.label_smoothing":{"a":0.0},'
        '"model":{"name":"mlp","width":64},'
        '"optimizer":{"decay":"decoupled","lr":0.1,"momentum":0.9,"name":"sgd"},"task":{"name":"digits"},'
        '"trial":{"seed":3}}')
    assert spec.trial_id == "fa3e5e192c41fa496d5a"


def test_overrides_replace_what_is_there(make: Make) -> None:
    space = {"lr": {"low": 0.1, "high": 1, "num": 3}, "dropout.p": {"values": [0.1]}}
    study = make("trial.optimizer.momentum=0.5", "space.lr={values: [0.3]}", "space.dropout.p.values=[0.2, 0.3]",
                 "space.seed.replicates=2", "space.batch_size=[2,4]", "trial.optimizer.weight_decay=1e-3",
                 "study=other", space=space)
    assert study.name == "other" and study.size == 8
    assert {axis.path[-1]: axis.form()["values"] for axis in study.axes} == {
        "lr": [0.3], "p": [0.2, 0.3], "seed": [5, 6], "batch_size": [2, 4]}
    assert (study.base.optimizer["momentum"], study.base.optimizer["weight_decay"]) == (0.5, 1e-3)


def test_axes_keep_the_order_in_which_they_are_written(make: Make, tmp_path: Path) -> None:
    space = {"lr": [0.1], "width": [4], "dropout": {"p": [0.1]}, "seed": [1], "optimizer": ["sgd"], "batch_size": [2]}
    paths = [axis.path for axis in make("space.width=[8]", "space.precision=[float64]", space=space).axes]
    assert [path[-1] for path in paths] == ["lr", "width", "p", "seed", "optimizer", "batch_size", "precision"]
    again = tmp_path / "again.yaml"
    again.write_text(make(space=space).resolved())
    assert [axis.path for axis in load_study(str(again)).axes] == paths[:-1]


def test_an_override_turns_a_knob_off(make: Make) -> None:
    assert make("trial.knobs.dropout.p=0.5").base.knobs == {"dropout": {"p": 0.5}}
    assert make("trial.knobs.dropout.p=0.5", "trial.knobs={}").base.knobs == {}


def test_interpolations_stay_inside_the_study(make: Make) -> None:
    study = make("trial.batch_size=${trial.model.width}", "space.lr.values=['${trial.optimizer.lr}', 1]",
                 "trial.optimizer.lr=0.25")
    assert study.base.batch_size == 16
    assert study.axes[0].form() == {"values": [0.25, 1.0]}
    assert "$" not in study.resolved()


def test_defaults(make: Make) -> None:
    study = make()
    assert (study.size, study.axes, study.device, study.retries, study.analysis) == (1, (), "auto", 1, [])
    assert (study.resources.cpu, study.resources.gpu, study.seeds) == (1.0, 0.0, (5,))
    assert [spec.trial_id for spec in specs(study)] == [study.base.trial_id]


@pytest.mark.parametrize(("pack", "lanes"), [("auto", 0), ("off", 1), (1, 1), (64, 64)])
def test_trials_side_by_side(pack: str | int, lanes: int, make: Make, tmp_path: Path) -> None:
    study = make(f"pack={pack}")
    assert study.lanes == lanes and make(pack=pack).lanes == lanes
    again = tmp_path / "again.yaml"
    again.write_text(study.resolved())
    assert load_study(str(again)).lanes == lanes


def test_analysis_is_kept_as_it_is(make: Make) -> None:
    analysis = [{"claim": "It falls.", "law": "power", "y": "stable_rank", "x": "batch_size", "where": {"layer": "fc1"},
                 "expect": {"exponent": {"below": 0}}},
                {"claim": "There is an edge.", "boundary": "diverged", "in": ["batch_size", "lr"],
                 "expect": {"slope": {"above": 0.9, "below": 1.1}}}]
    study = make(analysis=analysis)
    assert study.analysis == analysis
    assert [claim.claim for claim in study.claims] == ["It falls.", "There is an edge."]


def test_columns_cover_every_trial_of_a_study_of_components(make: Make) -> None:
    study = make(space={"model": ["mlp", "mini_alexnet", {"name": "mlp", "width": 8}], "optimizer": ["sgd", "adam"],
                        "dropout.p": [0.0, 0.5]})
    types = study.column_types
    for spec in specs(study):
        for name, value in spec.flat().items():
            assert pa.scalar(value, types[name]).as_py() == value
    assert set(types) == set().union(*(spec.flat() for spec in specs(study)))
    # The two MLPs differ in width and depth; momentum and beta1 follow from the optimizer's name.
    assert study.axis_columns == ["model", "model_width", "model_depth", "optimizer", "dropout_p"]


NET = """
from torch import nn
def make(input_shape, outputs, width=8, gain=1, block=None, *, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, outputs))
"""
TASK = """
import torch
from pathlib import Path
from trials.tasks.base import Data
def data(n=10, broken=False):
    with open(Path(__file__).parent / "loads", "a") as log:
        log.write("x")
    if broken:
        raise ValueError("no disk")
    x = torch.zeros(n, 1, 8, 8)
    return Data(x, torch.zeros(n).long(), x, torch.zeros(n).long(), classes=2)
"""


def user(make: Make, tmp_path: Path, space: dict[str, Any], **trial: Any) -> Study:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "own.py").write_text(TASK)
    base = {"task": "digits", "model": {"name": "net.py:make", "width": 4}, "optimizer": "sgd", "budget": {"epochs": 1}}
    return make(trial={**base, **trial}, space=space)


def test_parameters_of_user_code_are_axes_in_the_type_of_their_values(make: Make, tmp_path: Path) -> None:
    space = {"width": [4, 8], "gain": [1, 0.5], "bias": [True, False], "model.block": [[1, 2], [3]]}
    study = user(make, tmp_path, space)
    assert study.folder == tmp_path.resolve()
    assert [axis.form()["values"] for axis in study.axes] == [[4, 8], [1.0, 0.5], [True, False], [[1, 2], [3]]]
    assert {name: str(kind) for name, kind in study.column_types.items() if name.startswith("model")} == {
        "model": "string", "model_width": "int64", "model_gain": "double", "model_bias": "bool",
        "model_block": "string"}
    ids = [spec.trial_id for spec in specs(study)]
    assert len(set(ids)) == 16
    again = tmp_path / "again.yaml"
    again.write_text(study.resolved())
    assert [spec.trial_id for spec in specs(load_study(str(again)))] == ids


def test_whole_numbers_stay_whole_however_they_are_written(make: Make, tmp_path: Path) -> None:
    study = user(make, tmp_path, {"width": [4, 8.0], "gain": [-0.0, 1.5]})
    assert [repr(axis.form()["values"]) for axis in study.axes] == ["[4, 8]", "[0.0, 1.5]"]
    for spec in specs(study):
        build_network(spec, load_data(spec))


def test_a_claim_names_a_column_as_space_does(make: Make, tmp_path: Path) -> None:
    """By any end of its path that is its own; a measured column goes before."""
    user(make, tmp_path, {"width": [4, 8]})

    def over(name: str, **where: Any) -> tuple[Any, Any]:
        claim = {"claim": "c", "trend": "train_loss", "over": name, "where": where,
                 "expect": {"rank_correlation": {"between": [-1, 0]}}}
        base = {"task": "digits", "model": {"name": "net.py:make", "width": 4, "gain": 1}, "optimizer": "sgd",
                "budget": {"epochs": 1}, "knobs": {"dropout": {"p": 0.1}, "label_noise": {"p": 0.1}}}
        [found] = make(trial=base, space={"width": [4, 8]}, analysis=[claim]).claims
        return found.over, found.where  # type: ignore[attr-defined]

    for name in ("width", "model.width", "model_width"):
        assert over(name, **{name: 4}) == ("model_width", {"model_width": (4,)})
    assert [over(name)[0] for name in ("dropout.p", "optimizer.lr", "split_seed")] == [
        "dropout_p", "lr", "task_split_seed"]
    assert over("epochs")[0] == "epochs"  # those taken
    for name in ("p", "model.p", "epoch.s"):  # two knobs have it; none has
        with pytest.raises(UserError, match=f"analysis\\[0\\].over: no column called '{name}'"):
            over(name)


def test_ranges_of_user_parameters(make: Make, tmp_path: Path) -> None:
    study = user(make, tmp_path, {"width": {"low": 2, "high": 8, "num": 3, "scale": "log"},
                                  "gain": {"low": 0.0, "high": 1, "num": 3}})
    assert [axis.form()["values"] for axis in study.axes] == [[2, 4, 8], [0.0, 0.5, 1.0]]


def test_user_and_built_in_models_in_one_axis(make: Make, tmp_path: Path) -> None:
    study = user(make, tmp_path, {"model": ["net.py:make", "mlp"], "width": [4, 8]})
    assert [(spec.model["name"], spec.model["width"]) for spec in specs(study)] == [
        ("net.py:make", 4), ("net.py:make", 8), ("mlp", 4), ("mlp", 8)]


@pytest.mark.parametrize(("space", "message"), [
    ({"width": [4, "8"]}, "space.width.values: expected values of one type, got 4 and '8'"),
    ({"width": [4, None]}, "space.width.values[1]: null cannot be swept; give a value that your code takes for none"),
    ({"width": [4, 4.0]}, "space.width.values[1]: the same as values[0], 4; remove one"),
    ({"gain": [0.0, -0.0]}, "space.gain.values[1]: the same as values[0], 0.0; remove one"),
    ({"depth": [1]}, "space.depth: no such key in the trial"),
    ({"gain": {"low": "a", "high": 2}}, "space.gain.low: expected a number, got 'a'"),
    ({"model": ["net.py:make", {"name": "net.py:make", "width": "wide"}]}, "model_width is int64 in some trials and"),
    ({"model": [{"name": "net.py:make", "nosuch": 1}]}, "space.model.values[0]: net.py:make"),
    ({"model": ["net.py:mak"]}, "did you mean 'make'?"),
])
def test_bad_axes_of_user_code(make: Make, tmp_path: Path, space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        user(make, tmp_path, space)
    assert message in str(caught.value)


def test_a_users_task_is_loaded_once_to_know_its_size(make: Make, tmp_path: Path) -> None:
    task = {"name": "own.py:data", "n": 10}
    study = user(make, tmp_path, {"batch_size": [2, 10], "seed": {"replicates": 3}}, task=task)
    assert study.train_size(study.base.task) == 10
    assert len((tmp_path / "loads").read_text()) == 1
    with pytest.raises(UserError, match=r"space\.batch_size: expected at most 5, .*own\.py:data \(task\.n 5\), got 6"):
        user(make, tmp_path, {"batch_size": [2, 6], "n": [10, 5]}, task=task)
    with pytest.raises(UserError, match=r"trial\.task: own\.py:data failed: ValueError: no disk"):
        user(make, tmp_path, {"batch_size": [2]}, task={**task, "broken": True})
