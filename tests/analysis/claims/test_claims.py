"""Claims: parsed with care, judged by their intervals, on studies with planted laws."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from synthetic import Study

from analysis.claims import judge, parse_claims
from analysis.claims.base import CLAIMS
from analysis.estimates import Estimate, Region
from analysis.tables import load
from trials.errors import UserError

KNOWN = {"batch_size", "lr", "seed", "diverged", "test_loss", "stable_rank", "layer", "phase", "lr_per_batch",
         "status"}
POWER: dict[str, Any] = {"claim": "It grows.", "law": "power", "y": "test_loss", "x": "batch_size",
                         "expect": {"exponent": {"above": 0}}}
EDGE: dict[str, Any] = {"claim": "An edge.", "boundary": "diverged", "in": ["batch_size", "lr"],
                        "expect": {"slope": {"above": 0.8, "below": 1.2}}}


def without(item: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != key}


@pytest.mark.parametrize(("item", "place", "message"), [
    (without(POWER, "claim"), "analysis[0]", "has no key 'claim'"),
    (without(POWER, "law"), "analysis[0]", "expected one of the keys boundary, collapse"),
    (without(POWER, "expect"), "analysis[0]", "says nothing that could fail"),
    ({**POWER, "claim": " "}, "analysis[0].claim", "expected a sentence"),
    ({**POWER, "y": "tst_loss"}, "analysis[0].y", "did you mean 'test_loss'"),
    ({**POWER, "y": ["test_loss"]}, "analysis[0].y", "no column called"),
    ({**POWER, "x": ["batch_size", "lr"]}, "analysis[0].x", "expected 1 column(s) for the law power, got 2"),
    ({**POWER, "law": "powr"}, "analysis[0].law", "did you mean 'power'"),
    ({**POWER, "law": ["power"]}, "analysis[0].law", "no law called"),
    ({**POWER, "against": "power"}, "analysis[0].against", "expected a list of laws"),
    ({**POWER, "against": ["power"]}, "analysis[0].against", "power is the law that is claimed"),
    ({**POWER, "against": ["log", "log"]}, "analysis[0].against", "log is named twice"),
    ({**POWER, "wher": {}}, "analysis[0].wher", "did you mean 'where'"),
    ({**POWER, "where": "layer == 'fc1'"}, "analysis[0].where", "expected a mapping of columns to values"),
    ({**POWER, "where": {"layr": "fc1"}}, "analysis[0].where.layr", "did you mean 'layer'"),
    ({**POWER, "expect": {"slope": {"above": 0}}}, "analysis[0].expect.slope", "not a number of this fit"),
    ({**POWER, "expect": {"exponent": 1}}, "analysis[0].expect.exponent", "expected {above: a}, {below: b} or {betw"),
    ({**POWER, "expect": {"exponent": {"above": 1, "below": 0}}}, "analysis[0].expect.exponent", "expected {above: a}"),
    ({**POWER, "expect": {"exponent": {"between": [1]}}}, "analysis[0].expect.exponent", "or {between: [a, b]}, got"),
    ({**POWER, "expect": {"exponent": {"between": [1, 0]}}}, "analysis[0].expect.exponent", "or {between: [a, b]}"),
    ({**POWER, "expect": {"exponent": {"above": "0"}}}, "analysis[0].expect.exponent.above", "expected a number"),
    ({**POWER, "expect": {"exponent": {"above": math.nan}}}, "analysis[0].expect.exponent.above", "expected a number"),
    ({**POWER, "at": "start"}, "analysis[0].at", "expected end, {step: 1000} or {train_loss: 0.5}"),
    ({**POWER, "at": {"step": 1.5}}, "analysis[0].at", "expected end"),
    ({**POWER, "at": {"train_loss": -1}}, "analysis[0].at", "expected end"),
    ({"claim": "c", "trend": "phase", "over": "lr", "expect": {"rank_correlation": {"above": 0}}}, "analysis[0].trend",
     "claim the order of phases by phases: LAYER, over: lr"),
    ({**EDGE, "in": ["lr", "lr"]}, "analysis[0].in", "two different columns"),
    ({**EDGE, "boundary": "test_loss"}, "analysis[0]", "give above or between"),
    ({**EDGE, "boundary": "phase", "between": ["a", "a"]}, "analysis[0].between", "two different values"),
    ({**EDGE, "above": 1, "between": [0, 1]}, "analysis[0]", "above or between, not both"),
    ({**EDGE, "boundary": "phase", "between": ["random-like", "bulk-spikes"]}, "analysis[0].between",
     "no phase is called 'bulk-spikes'; did you mean 'bulk+spikes'"),
    ({**EDGE, "boundary": "status", "between": ["diverged", "copleted"]}, "analysis[0].between", "'completed'"),
    ({**EDGE, "given": ["test_loss"]}, "analysis[0].given", "expected axes of the study, got test_loss"),
    ({**EDGE, "given": ["status"]}, "analysis[0].given", "expected axes of the study, got status"),
    ({**EDGE, "given": ["lr"]}, "analysis[0].given", "expected axes beside batch_size, lr and seed, got lr"),
    ({**EDGE, "given": ["weigth_decay"]}, "analysis[0].given", "no column called 'weigth_decay'"),
    ({**EDGE, "given": ["layer", "layer"]}, "analysis[0].given", "given twice"),
])
def test_bad_claims_are_refused_with_their_place(item: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_claims([item], KNOWN)
    assert str(caught.value).startswith(f"{place}:") and message in str(caught.value)


def test_every_kind_of_claim_has_an_example_here() -> None:
    examples = [POWER, EDGE,
                {"claim": "c", "trend": "test_loss", "over": "lr", "expect": {"rank_correlation": {"above": 0}}},
                {"claim": "c", "optimum": "lr", "of": "test_loss", "over": "batch_size", "law": "power",
                 "against": ["saturating"]},
                {"claim": "c", "largest_stable": "lr", "over": "batch_size", "law": "power",
                 "expect": {"exponent": {"above": 0}}},
                {"claim": "c", "phases": "fc1", "over": "lr", "expect": {"order": ["bulk-decay", "random-like"]}},
                {"claim": "c", "collapse": "test_loss", "over": "lr", "by": "batch_size",
                 "expect": {"exponent": {"above": 0}}}]
    found = parse_claims(examples, KNOWN)
    assert {type(claim) for claim in found} == set(CLAIMS.classes.values())


@pytest.mark.parametrize(("low", "high", "answer"), [
    (0.1, 0.2, "holds"), (-0.2, -0.1, "fails"), (-0.1, 0.1, "undecided"), (0.0, 0.1, "holds"),
    (math.nan, math.nan, "undecided"), (0.1, math.inf, "holds"), (-math.inf, math.inf, "undecided")])
def test_a_region_judges_by_the_whole_interval(low: float, high: float, answer: str) -> None:
    assert Region(low=0.0).judge(Estimate(0.0, low, high)) == answer


def grown(study: Study, exponent: float = 0.5, noise: float = 0.02, seeds: int = 2) -> Any:
    """A study whose test loss is 2 B^exponent, and whose trials with lr > 0.01 B diverge."""
    rng = np.random.default_rng(0)
    for batch_size in (1, 2, 4, 8, 16, 32, 64):
        for seed in range(seeds):
            study.add(f"{batch_size}-{seed}", {"batch_size": batch_size, "seed": seed},
                      final={"test_loss": 2 * batch_size**exponent * np.exp(noise * rng.normal()), "train_loss": 0.1})
    return load(study.root)


@pytest.mark.parametrize(("expect", "answer"), [
    ({"exponent": {"above": 0.3}}, "holds"), ({"exponent": {"above": 0.45, "below": 0.55}}, "holds"),
    ({"exponent": {"above": 0.8}}, "fails"), ({"exponent": {"below": 0.5}}, "undecided"),
    ({"exponent": {"above": 0.3}, "scale": {"above": 3}}, "fails"), ({"exponent": {"between": [0.45, 0.55]}}, "holds"),
    ({"exponent": {"between": [0.6, 0.7]}}, "fails")])
def test_a_planted_power_law(study: Study, expect: dict[str, Any], answer: str) -> None:
    [claim] = parse_claims([{**POWER, "expect": expect}], KNOWN)
    [verdict] = judge([claim], grown(study))
    assert verdict.answer == answer and verdict.n == 14
    assert verdict.estimates["exponent"].covers(0.5)
    assert json.loads(json.dumps(verdict.as_json()))["verdict"] == answer


def test_a_law_against_others(study: Study) -> None:
    tables = grown(study)
    better, worse = parse_claims([{**without(POWER, "expect"), "against": ["constant", "log"]},
                                  {**without(POWER, "expect"), "law": "constant", "against": ["power"]}], KNOWN)
    holds, fails = judge([better, worse], tables)
    assert (holds.answer, fails.answer) == ("holds", "fails")
    assert "times likelier than" in holds.because and "times less likely than power" in fails.because
    assert [fit.law.name for fit in holds.rivals] == ["constant", "log"]


def test_the_exponent_of_a_law_that_does_not_fit_decides_nothing(study: Study) -> None:
    """Exponent .1 below 8, .9 above: none of it is about .5, and a power law against a constant is no better."""
    for batch_size in (1, 2, 4, 8, 16, 32, 64):
        y = batch_size**0.1 if batch_size < 8 else 8**0.1 * (batch_size / 8) ** 0.9
        for seed in range(3):
            noise = np.exp(0.02 * np.random.default_rng([batch_size, seed]).normal())
            study.add(f"{batch_size}-{seed}", {"batch_size": batch_size, "seed": seed},
                      final={"test_loss": y * noise, "train_loss": 0.1})
    tables = load(study.root)
    between, below, against, fails = judge(parse_claims([
        {**POWER, "expect": {"exponent": {"between": [0.2, 0.8]}}}, {**POWER, "expect": {"exponent": {"below": 0}}},
        {**without(POWER, "expect"), "against": ["constant"]}, {**without(POWER, "expect"), "against": ["linear"]}],
        KNOWN), tables)
    assert [each.answer for each in (between, below, against, fails)] == ["undecided"] * 3 + ["fails"]
    assert between.because.startswith("power does not fit: p = ") and "7 means along batch_size" in between.because
    [fits] = judge(parse_claims([{**POWER, "where": {"batch_size": [8, 16, 32, 64]}}], KNOWN), tables)
    assert fits.answer == "holds" and "power fits: p = " in fits.because


def test_a_trend(study: Study) -> None:
    tables = grown(study, exponent=-0.2, noise=0.0)
    item = {"claim": "c", "trend": "test_loss", "over": "batch_size", "expect": {"rank_correlation": {"below": 0}}}
    [verdict] = judge(parse_claims([item], KNOWN), tables)
    assert verdict.answer == "holds" and verdict.estimates["rank_correlation"].value == pytest.approx(-1.0)


def test_what_cannot_be_fitted_is_undecided_with_the_reason(study: Study) -> None:
    claims = parse_claims([{**POWER, "where": {"batch_size": 1}}, {**POWER, "where": {"batch_size": 3}},
                           {**POWER, "y": "stable_rank", "where": {"layer": "fc9"}}], KNOWN)
    few, none, layer = judge(claims, grown(study))
    assert {verdict.answer for verdict in (few, none, layer)} == {"undecided"}
    assert "not fitted" in few.because and "where batch_size is 3" in none.because and "fc1" in layer.because


@pytest.mark.parametrize(("level", "answer", "why"), [(0.0, "holds", "one curve: p = "),
                                                      (0.3, "undecided", "no exponent makes one curve: p = ")])
def test_a_collapse_is_tested(make_study: Callable[..., Study], level: float, answer: str, why: str) -> None:
    """y = s^level f(x / s): with a level it is one function of x / s^exponent for no exponent."""
    study, rng = make_study(("batch_size", "lr", "seed")), np.random.default_rng(0)
    for batch_size in (4, 16, 64, 256):
        for lr in np.geomspace(0.01, 1, 7):
            for seed in range(2):
                y = batch_size**level * (0.1 + 1 / (1 + (lr / batch_size * 150) ** -2)) * np.exp(0.03 * rng.normal())
                study.add(f"{batch_size}-{lr}-{seed}", {"batch_size": batch_size, "lr": lr, "seed": seed},
                          final={"test_loss": y, "train_loss": 0.1})
    item = {"claim": "c", "collapse": "test_loss", "over": "lr", "by": "batch_size",
            "expect": {"exponent": {"between": [0.5, 1.5]}}}
    [verdict] = judge(parse_claims([item], KNOWN), load(study.root))
    assert verdict.answer == answer and verdict.because.startswith(why) and "F test" in verdict.because


def edges(study: Study) -> Any:
    rng = np.random.default_rng(1)
    for batch_size in (1, 2, 4, 8, 16, 32):
        for place, lr in enumerate(np.geomspace(0.001, 3.0, 14)):
            for seed in range(2):
                gone = lr > 0.02 * batch_size * np.exp(0.1 * rng.normal())
                study.add(f"{batch_size}-{place}-{seed}", {"batch_size": batch_size, "lr": lr, "seed": seed},
                          status="diverged" if gone else "completed",
                          final={"test_loss": math.log(lr / (0.005 * batch_size)) ** 2 + 1.0})
    return load(study.root)


def test_a_planted_edge(make_study: Callable[..., Study]) -> None:
    claims = parse_claims([
        {**EDGE, "expect": {"slope": {"above": 0.7, "below": 1.4}}}, {**EDGE, "expect": {"slope": {"above": 1.5}}},
        {"claim": "c", "largest_stable": "lr", "over": "batch_size", "law": "power",
         "expect": {"exponent": {"above": 0.7, "below": 1.3}}},
        {"claim": "c", "optimum": "lr", "of": "test_loss", "over": "batch_size", "law": "power",
         "expect": {"exponent": {"above": 0.9, "below": 1.1}}}], KNOWN)
    slope, steep, stable, best = judge(claims, edges(make_study(("batch_size", "lr", "seed"))))
    assert [verdict.answer for verdict in (slope, steep, stable, best)] == ["holds", "fails", "holds", "holds"]
    assert slope.estimates["slope"].covers(1.0) and stable.estimates["exponent"].covers(1.0)


def test_a_boundary_that_is_no_line_decides_nothing(make_study: Callable[..., Study]) -> None:
    """A step: no straight line and no parabola."""
    study = make_study(("batch_size", "lr", "seed"))
    for batch_size in (1, 2, 4, 8, 16, 32, 64, 128):
        for place, lr in enumerate(np.geomspace(0.001, 1.0, 16)):
            for seed in range(3):
                study.add(f"{batch_size}-{place}-{seed}", {"batch_size": batch_size, "lr": lr, "seed": seed},
                          status="diverged" if lr > (0.004 if batch_size < 16 else 0.25) else "completed")
    [verdict] = judge(parse_claims([{**EDGE, "expect": {"slope": {"above": 0.1}}}], KNOWN), load(study.root))
    assert verdict.answer == "undecided" and "but not this line" in verdict.because


def test_a_boundary_that_another_axis_moves_takes_it_as_given(make_study: Callable[..., Study]) -> None:
    study, rng = make_study(("batch_size", "lr", "model", "seed")), np.random.default_rng(3)
    for batch_size in (2, 4, 8, 16, 32, 64):
        for place, lr in enumerate(np.geomspace(0.001, 3.0, 10)):
            for model, factor in (("mlp", 1.0), ("cnn", 0.1)):
                gone = lr > 0.02 * factor * batch_size * np.exp(0.3 * rng.normal())
                study.add(f"{batch_size}-{place}-{model}", {"batch_size": batch_size, "lr": lr, "model": model},
                          status="diverged" if gone else "completed")
    claim = {**EDGE, "expect": {"slope": {"above": 0.5, "below": 1.5}}}
    pools, given = judge(parse_claims([claim, {**claim, "given": "model"}], KNOWN | {"model"}), load(study.root))
    assert pools.answer == "undecided" and "model moves it; add given: [model]" in pools.because
    assert given.answer == "holds" and "at the middle of model" in given.method
    assert "of one seed alone" in given.method


def test_layers_of_a_trial_are_no_replicates_and_a_slope_names_its_scales(make_study: Callable[..., Study]) -> None:
    study = make_study(("batch_size", "lr", "seed"))
    for batch_size in (8, 16, 32, 64, 128):
        for lr in (0.0, 0.01, 0.02, 0.03):
            ranks = {"fc1": {"stable_rank": float(batch_size)}, "fc2": {"stable_rank": 100.0 / batch_size}}
            study.add(f"{batch_size}-{lr}", {"batch_size": batch_size, "lr": lr, "seed": 0},
                      layers=ranks, final={"test_accuracy": float(lr * 1000 < batch_size / 3), "train_loss": 0.1})
    rank = {"claim": "c", "law": "power", "y": "stable_rank", "x": "batch_size", "expect": {"exponent": {"above": 0}}}
    edge = {"claim": "c", "boundary": "test_accuracy", "above": 0.5, "in": ["batch_size", "lr"],
            "expect": {"slope": {"above": 0}}}
    known = KNOWN | {"test_accuracy"}
    open_, one, both, slope = judge(parse_claims(
        [rank, {**rank, "where": {"layer": "fc1"}}, {**rank, "where": {"layer": ["fc1", "fc2"]}}, edge], known),
        load(study.root))
    assert open_.answer == "undecided" and open_.n == 0 and "2 layers (fc1, fc2)" in open_.because
    assert one.n == 20 and one.estimates["exponent"].value == pytest.approx(1.0)
    assert both.n == 40 and "2 layers of 20 trials" in both.because
    for said in (slope.as_json()["about"], slope.because):
        assert "slope d lr / d log(batch_size) (lr is linear: it holds" in said
