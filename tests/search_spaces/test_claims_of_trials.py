"""A claim about trials that the study does not have is refused, with the nearest that it has; one that names a value as
tables print it is about that value."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.observe import named
from search_spaces import load_study, read_study
from search_spaces.decidable import doubts
from trials.errors import UserError

STUDY = """
study: s
trial:
  task: digits
  model: {{name: mlp, width: 16, depth: 2}}
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}
  budget: {budget}
  batch_size: 100
space:
  lr: {{low: 0.01, high: 0.3, scale: log, num: 4}}
  model.width: [16, 65536]
  weight_decay: [0.0, 0.0001]
  optimizer: [sgd, adam]
  seed: {{replicates: 2}}
{design}
analysis:
- {{claim: c, trend: test_loss, over: weight_decay, {claim}, expect: {{rank_correlation: {{below: 0}}}}}}
"""


def load(folder: Path, claim: str, budget: str = "{epochs: 2}", design: str = "", *overrides: str) -> str:
    """What is said against it; nothing where it is fine."""
    text = STUDY.format(claim=claim, budget=budget, design=design)
    (folder / "s.yaml").write_text(text)
    # What was run is read all the same.
    assert read_study(text.encode(), "s", folder, overrides).claims
    try:
        load_study(str(folder / "s.yaml"), overrides)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return str(error)
    return ""


@pytest.mark.parametrize(("where", "said"), [
    ("lr: 0.1", "analysis[0].where.lr: 0.1 is no value of lr in this study; the nearest is 0.0965"),
    ("lr: [0.2, 0.5]", "0.2 is no value of lr in this study; the nearest is 0.3"),
    ("lr: [0.2, 0.3]", "0.2 is no value of lr"), ("lr: [0.3, 0.2]", "0.2 is no value of lr"),
    ("model_width: 60000", "60000 is no value of model_width in this study; the nearest is 65536"),
    ("seed: 2", "the nearest is 1"), ("momentum: 0.8", "the nearest is 0.9"), ("batch_size: 10", "the nearest is 100"),
    ("optimizer: adamw", "adamw is no value of optimizer in this study; did you mean 'adam'?"),
    ("task: modular_addition", "no value of task"), ("lr: fast", "no value of lr"), ("optimizer: 3", "no value"),
    ("weight_decay: 1e-4", ""), ("lr: 0.0311", ""), ("lr: 0.03107233", ""), ("lr: 0.0310723250595", ""),
    ("lr: [0.0965, 0.01]", ""), ("lr: 0.03", "the nearest is 0.0311"), ("lr: 0.0310723", ""),
    ("layer: nosuch", ""), ("host: nosuch", ""), ("seed: 1, optimizer: adam", "")])
def test_where(tmp_path: Path, where: str, said: str) -> None:
    found = load(tmp_path, f"where: {{{where}}}")
    assert (said in found) if said else not found


def test_where_on_a_range_is_left_to_the_results(tmp_path: Path) -> None:
    overrides = ("space.lr={low: 0.01, high: 0.3, scale: log}", "design={name: sobol, trials: 8}")
    assert not load(tmp_path, "where: {lr: 0.1}", "{epochs: 2}", "", *overrides)


@pytest.mark.parametrize(("claim", "overrides"), [
    ("where: {lr: 0.0311}", ["space.lr=[0.01,0.3]"]), ("where: {lr: [0.01, 0.0311]}", ["space.lr=[0.01,0.3]"]),
    ("where: {lr: 0.0311}", ["space.lr.num=3"]),
    ("where: {optimizer: adam}", ["space.optimizer=[sgd]"]), ("at: {step: 30}", ["trial.budget.epochs=1"])])
def test_what_overrides_took_out_is_no_mistake_of_the_study(tmp_path: Path, claim: str, overrides: list[str]) -> None:
    """The other claims are judged; this one will be undecided, which is said."""
    assert not load(tmp_path, claim, "{epochs: 2}", "", *overrides)
    [line] = [line for line in doubts(load_study(str(tmp_path / "s.yaml"), overrides)) if "analysis[0]." in line]
    assert line.startswith("'c' will be undecided: analysis[0].")


def test_a_mistake_is_refused_under_overrides_too(tmp_path: Path) -> None:
    override = ["space.lr=[0.01,0.3]"]
    assert "0.2 is no value of lr" in load(tmp_path, "where: {lr: 0.2}", "{epochs: 2}", "", *override)
    wrong = ("analysis=[{claim: c, trend: test_loss, over: lr, where: {lr: 0.2}, "
             "expect: {rank_correlation: {above: 0}}}]")
    assert "0.2 is no value of lr" in load(tmp_path, "where: {lr: 0.3}", "{epochs: 2}", "", wrong)


@pytest.mark.parametrize(("step", "budget", "said"), [
    (100, "{steps: 100}", ""), (120, "{steps: 100}", ""), (126, "{steps: 100}", "no trial takes more than 100 steps"),
    (30, "{epochs: 2}", ""), (60, "{epochs: 2}", "steps, got 60")])
def test_at(tmp_path: Path, step: int, budget: str, said: str) -> None:
    found = load(tmp_path, f"at: {{step: {step}}}", budget)
    assert (said in found) if said else not found


def test_values_are_named_as_tables_print_them() -> None:
    values = list(pd.Series([0.01, 0.0310723250595, 0.0965489384606, 0.3]).unique())
    assert named(0.0311, values) == [values[1]] and named(0.031072, values) == [values[1]]
    assert named(0.1, values) == [] and named(0.3 * (1 + 1e-8), values) == [0.3] and named("0.3", values) == []
    assert named(0.5, [0.5, 0.50000001]) == [0.5, 0.50000001]
    assert named(0.125, [0.125, 0.12501]) == [0.125]  # what is equal is not rounded
    with pytest.raises(UserError, match=r"0.0311 is how 0.03107, 0.03112 are shown; give more digits"):
        named(0.0311, [0.03107, 0.03112])
    assert named(65500, [65536]) == [] and named(True, ["True"]) == []
