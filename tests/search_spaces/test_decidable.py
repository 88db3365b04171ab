"""Claims that no result can decide are refused before anything is trained; those over too few values are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces import Study, read_study
from search_spaces.decidable import check_layers, check_measured, doubts, of_spectra
from trials.errors import UserError

STUDY = """
study: s
trial:
  task: digits
  model: {name: mlp, width: 64, depth: 2}
  optimizer: {name: sgd, lr: 0.1}
  budget: {epochs: 1}
space:
  batch_size: [8, 16, 32, 64, 128]
  lr: [0.1, 0.2]
  seed: {replicates: 2}
"""
TREND = "trend: stable_rank, over: batch_size, expect: {rank_correlation: {above: 0}}"
PHASES = "over: batch_size, expect: {order: [bulk+spikes, random-like]}"


def study(claim: str, *overrides: str) -> Study:
    text = f"{STUDY}analysis:\n- {{claim: c, {claim}}}\n"
    return read_study(text.encode(), "s", Path.cwd(), overrides, new=True)


@pytest.mark.parametrize(("claim", "overrides", "fix"), [
    (f"{TREND}, where: {{layer: fc1}}", ["measure.weights=none"], "set measure.weights to last"),
    (f"phases: fc1, {PHASES}", ["measure.weights=none"], "about phase, which is not measured; set measure.weights"),
    (f"{TREND}, where: {{layer: 'fc1:change'}}", ["measure.changes=none"], "set measure.changes to last"),
    (TREND.replace("stable_rank", "hessian_max"), [], "about hessian_max, which is not measured; set measure.curv"),
    ("boundary: stable_rank, between: [4, 7], in: [batch_size, lr], where: {layer: fc1}, expect: {slope: {above: 0}}",
     [], "give above: NUMBER"),
    (f"{TREND}, where: {{layer: fc1}}", [], ""), (f"phases: fc1, {PHASES}", ["measure.changes=none"], ""),
    (f"{TREND}, where: {{layer: 'fc1:change'}}", ["measure.weights=none"], ""),
    (TREND.replace("stable_rank", "hessian_max"), ["measure.curvature=last"], ""),
    (TREND.replace("stable_rank", "test_loss"), ["measure.weights=none"], "")])
def test_what_is_not_measured(claim: str, overrides: list[str], fix: str) -> None:
    found = study(claim, *overrides)
    if not fix:
        return check_measured(found)
    with pytest.raises(UserError) as caught:
        check_measured(found)
    assert str(caught.value).startswith("analysis[0]: 'c' can never be decided") and fix in str(caught.value)
    return None


@pytest.mark.parametrize(("claim", "layers", "said"), [
    ("phases: fc1, " + PHASES, ["0", "4"], "no layer is called 'fc1'; there is: 0, 0:change, 4, 4:change"),
    ("phases: 0, " + PHASES, ["0", "4"], ""), ("phases: '0', " + PHASES, ["0", "4"], ""),
    (f"{TREND}, where: {{layer: 4}}", ["0", "4"], ""), (f"{TREND}, where: {{layer: [0, 4]}}", ["0", "4"], ""),
    (f"{TREND}, where: {{layer: [0, 5]}}", ["0", "4"], "no layer is called 5"),
    (TREND, ["0", "4"], "stable_rank of 4 layers (0, 4, 0:change, 4:change)"),
    (TREND, ["fc1"], "2 layers (fc1, fc1:change)"), (f"{TREND}, at: {{train_loss: 0.5}}", ["fc1"], ""),
    (f"{TREND}, at: {{train_loss: 0.5}}", ["fc1", "fc2"], 'name one: where: {layer: "fc1"}')])
def test_layers(claim: str, layers: list[str], said: str) -> None:
    found = study(claim)
    assert of_spectra(found)
    if not said:
        return check_layers(found, layers)
    with pytest.raises(UserError) as caught:
        check_layers(found, layers)
    assert said in str(caught.value)
    return None


@pytest.mark.parametrize(("claim", "overrides", "said"), [
    ("phases: fc1, " + PHASES, [], ""), (f"{TREND}, where: {{layer: fc1}}", [], ""),
    ("phases: fc1, " + PHASES, ["space.batch_size=[8,16,32]"], "3 values of batch_size, and it takes 5 at least"),
    (f"{TREND}, where: {{layer: fc1, batch_size: [8, 16]}}", [], "2 values of batch_size"),
    (TREND.replace("batch_size", "lr"), [], "2 values of lr"),
    ("phases: fc1, " + PHASES.replace("batch_size", "step"), [], ""),
    ("phases: fc1, " + PHASES.replace("batch_size", "step"), ["space.batch_size=[8]"],
     "2 settings, and it takes 6 at least")])
def test_too_few_values(claim: str, overrides: list[str], said: str) -> None:
    lines = list(doubts(study(claim, *overrides)))
    assert len(lines) == bool(said) and all(said in line for line in lines)
