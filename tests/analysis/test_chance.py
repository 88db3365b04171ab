"""Trials that finished and tell no more than a guess: found by the tables alone, marked wherever they count."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console
from synthetic import Study

from analysis import format_table, observations, spectra_figure, summary
from analysis.chance import at_chance
from analysis.claims import judge, parse_claims
from analysis.tables import Tables, load
from trials.records import Rows

GUESS = math.log(10)
BATCHES = (2, 4, 8, 16, 32, 64)
LRS = (0.1, 1.0)


def fill(study: Study, guess: float | None = GUESS) -> Tables:
    """Two rates and three seeds: at batch 2 the first seed broke, at rate 1 it diverged at batches 2 and 4."""
    for batch in BATCHES:
        for lr in LRS:
            for seed in range(3):
                broken, diverged = (batch, lr, seed) == (2, 0.1, 0), lr == 1.0 and batch < 8 and seed == 0
                own = {"trial_id": f"b{batch:03}r{lr:g}s{seed}", "model": "mlp", "batch_size": batch, "lr": lr,
                       "seed": seed}
                final = {} if diverged else {"train_loss": 2.31 if broken else 0.1, "chance_loss": guess}
                study.write(Rows.build(study.schema, {
                    "trials": [{**own, "status": "diverged" if diverged else "completed", "steps": 100, **final}],
                    "steps": [{**own, "step": step, "train_loss": loss} for step, loss in (
                        (0, 2.305), (50, 0.05), (100, final.get("train_loss")))],
                    "layers": [{**own, "step": 100, "layer": "fc1", "kind": "linear", "rows": 64, "cols": 32,
                                "stable_rank": 1.0 + batch + 0.01 * seed}], "spectra": []}))
    return load(study.root)


@pytest.fixture
def tables(make_study: Any) -> Tables:
    return fill(make_study(["batch_size", "lr", "seed"]))


def because(tables: Tables, claim: dict[str, Any]) -> str:
    known = {"batch_size", "lr", "stable_rank", "layer", "at_chance", "seed"}
    [found] = judge(parse_claims([{"claim": "c", **claim}], known), tables)
    return found.because


def test_a_network_that_went_back_to_guessing_is_at_chance(tables: Tables) -> None:
    found = at_chance(tables)
    assert list(found[found].index) == ["b002r0.1s0"] and found.dtype == bool
    rows = observations(tables, ["stable_rank", "at_chance"])
    assert rows["at_chance"].sum() == 1 and rows.attrs["at_chance"] == ("b002r0.1s0",)
    assert len(observations(tables, ["stable_rank"], where={"at_chance": [0]})) == 33


def test_without_the_loss_of_guessing_that_before_training_counts(make_study: Any) -> None:
    """As in the tables of earlier versions."""
    found = at_chance(fill(make_study(["batch_size", "lr", "seed"]), None))
    assert list(found[found].index) == ["b002r0.1s0"]


@pytest.mark.parametrize(("loss", "guess", "expected"), [
    (GUESS, GUESS, True), (0.991 * GUESS, GUESS, True), (0.98 * GUESS, GUESS, False), (3.0, GUESS, True),
    (0.0, 0.0, False)])
def test_how_near(study: Study, loss: float, guess: float, expected: bool) -> None:
    study.add("a", final={"train_loss": loss, "chance_loss": guess})
    study.add("b", {"seed": 1}, status="failed")
    assert at_chance(load(study.root)).to_dict() == {"a": expected, "b": False}


TREND = {"trend": "stable_rank", "over": "batch_size", "expect": {"rank_correlation": {"above": 0}}}
POWER = {"law": "power", "y": "stable_rank", "x": "batch_size", "expect": {"exponent": {"above": 0}}}
COLLAPSE = {"collapse": "stable_rank", "over": "batch_size", "by": "lr", "expect": {"exponent": {"above": 0}}}


@pytest.mark.parametrize("claim", [TREND, POWER])
def test_a_verdict_says_what_its_rows_are(tables: Tables, claim: dict[str, Any]) -> None:
    said = because(tables, claim)
    assert "2 trials left out, diverged: batch_size 2 (1), 4 (1)" in said
    assert "1 trial at chance, and counted: batch_size 2 (1)" in said
    assert "pools lr (2 values)" in said
    held = because(tables, {**claim, "where": {"lr": 0.1, "at_chance": 0}})
    assert not any(word in held for word in ("diverged", "at chance", "pools"))
    only = because(tables, {**claim, "where": {"lr": 1.0}})
    assert "2 trials left out, diverged" in only and "at chance" not in only


def test_a_collapse_says_it_too(tables: Tables) -> None:
    said = because(tables, COLLAPSE)
    assert "2 trials left out, diverged: lr 1 (2)" in said and "1 trial at chance, and counted: lr 0.1 (1)" in said
    assert "pools" not in said


def test_the_table_counts_them(tables: Tables) -> None:
    found = summary(tables)
    assert found["at_chance"].tolist() == [1] + [0] * 11
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(format_table(found, first=["fc1.stable_rank"]))
    text = console.export_text()
    assert "chance" in text and "training loss is that of guessing" in " ".join(text.split())
    assert text.index("rank") < text.index("loss")
    console.print(format_table(found.assign(at_chance=0)))
    assert "chance" not in console.export_text()


def test_a_figure_of_one_trial_a_panel_takes_those_that_learned(make_study: Any) -> None:
    study = make_study(["batch_size", "seed"])
    for batch in BATCHES:
        for seed in range(2):
            own = {"trial_id": f"b{batch:03}s{seed}", "batch_size": batch, "seed": seed}
            final = {"train_loss": GUESS if (batch, seed) == (2, 0) else 0.1, "chance_loss": GUESS}
            study.add(own["trial_id"], own, final=final, spectra={"fc1": [3.0, 2.0, 1.0]})
    assert "(seed 1)" in spectra_figure(load(study.root))._supxlabel.get_text()  # type: ignore[attr-defined]
    titles = [panel.get_title(loc="left") for panel in spectra_figure(load(study.root), where={"seed": 0}).axes]
    assert titles[0] == "(a) batch size 2 (at chance)" and not any("chance" in title for title in titles[1:])
