"""Several studies as one."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow.compute as pc
import pytest
from synthetic import CONFIG, Study

import analysis
from analysis.studies import Studies
from trials.errors import UserError


@pytest.fixture
def two(make_study: Callable[..., Study]) -> Studies:
    one, other = make_study(("batch_size", "seed"), "one"), make_study(("lr", "model", "seed"), "other", CONFIG)
    for batch_size in (4, 8):
        one.add(f"b{batch_size}", {"batch_size": batch_size}, final={"test_loss": batch_size / 10})
    for model in ("mlp", "lenet"):
        other.add(model, {"model": model}, final={"test_loss": 2.0})
    return analysis.load_studies(one.root, other.root)


def test_their_tables_stand_below_each_other(two: Studies) -> None:
    assert two.axes == ["study", "batch_size", "seed", "model", "lr"] and two.name == "one, other"
    assert two.trials["study"].tolist() == ["one", "one", "other", "other"]
    assert len(two.layers) == 8 and len(two.steps) == 8 and two.spectra.empty
    loss = two.table("trials", ["test_loss"], pc.field("test_loss") > 0.5)
    assert loss["test_loss"].tolist() == [0.8, 2.0, 2.0] and "study" not in loss
    loss = two.table("trials", ["test_loss", "study"], pc.field("test_loss") > 0.5)
    assert loss["study"].tolist() == ["one", "other", "other"]


def test_axes_of_text_are_categories(two: Studies) -> None:
    assert list(two.trials["study"].cat.categories) == ["one", "other"]
    assert list(two.each[1].trials["model"].cat.categories) == ["lenet", "mlp"]  # an axis there
    assert two.each[0].trials["model"].tolist() == ["mlp", "mlp"] and not hasattr(two.each[0].trials["model"], "cat")


def test_claims_can_be_asked_of_both(two: Studies) -> None:
    rows = analysis.observations(two, {"test_loss", "study"})
    assert rows["configuration"].nunique() == 4
    means = rows.groupby("study", observed=True)["test_loss"].mean()
    assert means.to_dict() == pytest.approx({"one": 0.6, "other": 2.0})


def test_bad_input(two: Studies) -> None:
    with pytest.raises(UserError, match="no column called 'tst_loss' in trials"):
        two.table("trials", ["tst_loss"])
    with pytest.raises(UserError, match="two results folders are called one"):
        analysis.load_studies(two.each[0].place, two.each[0].place)
