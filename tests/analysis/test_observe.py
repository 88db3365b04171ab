"""The frame that claims are fitted from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from synthetic import Study

from analysis.claims.moment import Moment
from analysis.observe import DERIVED, known_columns, observations, pooled
from analysis.tables import load
from trials.errors import UserError

LAYERS = {name: {"rows": 64, "cols": 32, "stable_rank": rank} for name, rank in (("fc1", 3.0), ("fc2", 4.0))}


def test_a_row_a_trial_with_what_follows_from_its_columns(make_study: Callable[..., Study]) -> None:
    study = make_study(("batch_size", "lr", "seed"))
    for seed in range(2):
        study.add(f"a{seed}", {"batch_size": 8, "lr": 0.4, "seed": seed},
                  final={"train_accuracy": 0.9, "test_accuracy": 0.7, "train_loss": 0.1, "test_loss": 0.6})
    study.add("b", {"batch_size": 4, "lr": 0.4, "seed": 0}, final={"train_accuracy": 0.5, "test_accuracy": 0.5})
    rows = observations(load(study.root), {"accuracy_gap", "loss_gap", "lr_per_batch", "batch_size"})
    assert len(rows) == 3 and rows.groupby("batch_size")["configuration"].nunique().to_dict() == {4: 1, 8: 1}
    assert rows["configuration"].nunique() == 2  # seeds are replicates of one
    first = rows[rows["batch_size"] == 8].iloc[0]
    assert (first["accuracy_gap"], first["loss_gap"], first["lr_per_batch"]) == pytest.approx((0.2, 0.5, 0.05))


def test_diverged_trials_count_only_where_that_is_asked(study: Study) -> None:
    study.add("a", final={"test_loss": 1.0})
    study.add("b", {"seed": 1}, status="diverged", final={"test_loss": 1e9})
    study.add("c", {"seed": 2}, status="failed")
    tables = load(study.root)
    assert observations(tables, {"test_loss"})["trial_id"].tolist() == ["a"]
    assert observations(tables, {"test_loss", "diverged"})["diverged"].tolist() == [0, 1]


def test_a_row_a_layer_at_the_last_step_where_a_layer_is_asked_for(study: Study) -> None:
    study.add("a", layers=LAYERS, final={"train_loss": 0.5})
    tables = load(study.root)
    rows = observations(tables, {"stable_rank", "layer", "train_loss"})
    assert dict(zip(rows["layer"], rows["stable_rank"], strict=True)) == {"fc1": 3.0, "fc2": 4.0}
    assert rows["train_loss"].tolist() == [0.5, 0.5]
    assert observations(tables, {"stable_rank"}, where={"layer": ("fc2",)})["stable_rank"].tolist() == [4.0]
    with pytest.raises(UserError, match="where layer is fc3; did you mean 'fc"):
        observations(tables, {"stable_rank"}, where={"layer": ("fc3",)})


def with_losses(study: Study) -> None:
    for trial_id, losses in (("slow", (2.0, 1.5, 1.2, 0.8)), ("fast", (2.0, 0.7, 0.4, 0.1))):
        rows = study.rows(trial_id, layers=LAYERS, steps=(0, 10, 30, 100), final={"train_loss": losses[-1]})
        steps = rows.tables["steps"]
        column = steps.schema.get_field_index("train_loss")
        rows.tables["steps"] = steps.set_column(column, steps.schema.field(column), [list(losses)])  # type: ignore[index]
        study.write(rows)


@pytest.mark.parametrize(("moment", "expected"), [
    (Moment(), {"slow": 0.8, "fast": 0.1}), (Moment(step=10), {"slow": 1.5, "fast": 0.7}),
    (Moment(step=28), {"slow": 1.2, "fast": 0.4}), (Moment(train_loss=0.8), {"slow": 0.8, "fast": 0.8}),
    (Moment(train_loss=0.5), {"fast": 0.5})])
def test_matched_moments(study: Study, moment: Moment, expected: dict[str, float]) -> None:
    with_losses(study)
    tables = load(study.root)
    rows = observations(tables, {"train_loss"}, moment)
    assert dict(zip(rows["trial_id"], rows["train_loss"], strict=True)) == pytest.approx(expected)
    layers = observations(tables, {"train_loss", "stable_rank", "layer"}, moment)  # of the same moment
    assert set(layers["stable_rank"]) == ({3.0, 4.0} if moment == Moment() else
                                          {3.0, 4.0, -1.0} if moment == Moment(train_loss=0.8) else {-1.0})


@pytest.mark.parametrize(("moment", "said"), [
    (Moment(step=10), ""), (Moment(step=28), "measured at steps 30 to 30"), (Moment(), None),
    (Moment(train_loss=1.3), "training loss 1.3: between measurements whose losses are at most x 2.86 apart"),
    (Moment(train_loss=3.0), "training loss 3: 2 trials below it when first measured, by x 1.5 at most")])
def test_how_well_a_moment_is_the_same_is_said(study: Study, moment: Moment, said: str | None) -> None:
    with_losses(study)
    assert observations(load(study.root), {"train_loss"}, moment).attrs.get("control") == said


def test_numbers_at_a_training_loss_are_interpolated(study: Study) -> None:
    """Between losses 1.2 and 0.3, at a third of the way in logarithms; the last step's loss is below 0.3 already."""
    for trial_id, losses in (("a", (2.0, 1.2, 0.3)), ("b", (0.1, 0.05, 0.01)), ("c", (2.0, 1.5, 1.0))):
        rows = study.rows(trial_id, layers={"fc1": {"rows": 64, "cols": 64, "stable_rank": 8.0, "n_spikes": 5}},
                          steps=(0, 10, 1000), final={"train_loss": losses[-1]})
        steps = rows.tables["steps"]
        column = steps.schema.get_field_index("train_loss")
        rows.tables["steps"] = steps.set_column(column, steps.schema.field(column), [list(losses)])  # type: ignore[index]
        study.write(rows)
    loss = 1.2 * (0.3 / 1.2) ** (1 / 3)
    found = observations(load(study.root), {"train_loss", "stable_rank", "n_spikes", "step", "layer"},
                         Moment(train_loss=loss)).set_index("trial_id")
    assert set(found.index) == {"a", "b"} and found.attrs["absent"] == ("c",)  # c never gets there
    assert found.loc["a", ["train_loss", "stable_rank", "n_spikes", "step"]].tolist() == pytest.approx(
        [loss, -1 + 9 / 3, -1 + 6 / 3, 10 * 100 ** (1 / 3)])
    assert found.loc["b", ["train_loss", "stable_rank", "step"]].tolist() == [0.1, -1.0, 0]  # below from the start


def test_interpolated_numbers_are_one_frame(study: Study) -> None:
    """pandas warns of frames that are put together column by column, and warnings are errors here."""
    with_losses(study)
    assert len(observations(load(study.root), known_columns(()), Moment(train_loss=0.8))) == 4


def test_a_moment_that_no_trial_was_measured_at(study: Study) -> None:
    with_losses(study)
    for moment in (Moment(step=60), Moment(train_loss=0.01)):
        with pytest.raises(UserError, match=f"no results {moment}"):
            observations(load(study.root), {"train_loss"}, moment)


def test_every_known_column_can_be_had(study: Study) -> None:
    study.add("a", layers=LAYERS, final={"train_loss": 0.5})
    tables = load(study.root)
    known = known_columns(["model", "lr", "batch_size", "seed"])
    assert {*DERIVED, "stable_rank", "gradient_norm", "test_loss", "wall_time", "lr"} <= known
    rows = observations(tables, known - {"phase"} & set(study.schema["layers"].names) | {"wall_time", "gradient_norm"})
    assert len(rows) == 2


def test_layers_are_not_pooled_unless_they_are_listed(study: Study) -> None:
    for trial_id in "ab":
        study.add(trial_id, {"batch_size": 8}, layers=LAYERS)
    tables = load(study.root)
    with pytest.raises(UserError, match=r"stable_rank of 2 layers \(fc1, fc2\).*where: \{layer: \"fc1\"\}"):
        observations(tables, {"stable_rank", "batch_size"})
    assert len(observations(tables, {"stable_rank"}, where={"layer": ("fc1",)})) == 2
    both = observations(tables, {"stable_rank"}, where={"layer": ("fc1", "fc2")})
    assert len(both) == 4 and pooled(both) == ["2 layers of 2 trials"]
    assert pooled(observations(tables, {"stable_rank"}, where={"layer": ("fc1",)})) == []
    assert len(observations(tables, {"batch_size"})) == 2


def test_a_whole_number_names_the_layer_that_is_spelt_so(study: Study) -> None:
    study.add("a", layers={"0": LAYERS["fc1"], "4": LAYERS["fc2"]})
    assert len(observations(load(study.root), {"stable_rank"}, where={"layer": (4,)})) == 1


def test_a_moment_beyond_what_was_measured_says_how_far_that_goes(study: Study) -> None:
    study.add("a", layers=LAYERS)
    with pytest.raises(UserError, match="no results at step 1,000,000; measured steps end at"):
        observations(load(study.root), {"stable_rank", "layer"}, Moment(step=1_000_000))


def test_a_trial_that_diverged_before_a_step_had_diverged_then(study: Study) -> None:
    """Though it was not measured there; and one that diverges later has not yet."""
    study.add("fine", {"lr": 0.1})
    for trial_id, step in (("early", 3), ("late", 90)):
        study.write(study.rows(trial_id, {"lr": 1.0}, status="diverged", steps=(0, 2) if step == 3 else (0, 50),
                               final={"diverged_step": step}))
    study.write(study.rows("short", {"lr": 0.2}, steps=(0, 20)))
    tables = load(study.root)
    rows = observations(tables, {"diverged", "gradient_norm"}, Moment(step=50))
    assert dict(zip(rows["trial_id"], rows["diverged"], strict=True)) == {"early": 1, "late": 0}
    assert set(rows.attrs["absent"]) == {"fine", "short"}  # measured at 0 and 100, and at 0 and 20
    assert dict(observations(tables, {"diverged"}).set_index("trial_id")["diverged"]) == {
        "fine": 0, "early": 1, "late": 1, "short": 0}


@pytest.mark.parametrize("column", ["status", "diverged_step"])
def test_what_says_that_a_trial_diverged_asks_for_those_that_did(study: Study, column: str) -> None:
    study.add("fine")
    study.write(study.rows("gone", status="diverged", final={"diverged_step": 7}))
    tables = load(study.root)
    assert set(observations(tables, {column})["trial_id"]) == {"fine", "gone"}
    assert list(observations(tables, {"lr"}, where={"status": ["diverged"]})["trial_id"]) == ["gone"]
    assert list(observations(tables, {"train_loss"})["trial_id"]) == ["fine"]


def test_a_number_of_the_trial_is_there_once_however_many_layers_are_named(study: Study) -> None:
    study.add("a", layers=LAYERS)
    study.add("b", layers=LAYERS)
    tables = load(study.root)
    where = {"layer": tuple(LAYERS)}
    assert len(LAYERS) > 1 and list(observations(tables, {"diverged", "lr"}, where=where)["trial_id"]) == ["a", "b"]
    assert len(observations(tables, {"stable_rank", "lr"}, where=where)) == 2 * len(LAYERS)
