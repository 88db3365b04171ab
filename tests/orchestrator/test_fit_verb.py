"""``phasesweep fit``: verdicts on the terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trained import trained

from orchestrator.cli import main

STUDY = """
study: tiny
question: Does the loss fall with lr?
source: none
trial:
  task: {name: gaussian_regression, dim: 4, samples: 32}
  model: {name: mlp, depth: 0}
  optimizer: {name: sgd}
  budget: {steps: 4}
  batch_size: 8
space:
  lr: {values: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32]}
measure: {weights: none, eigenvalues: none}
analysis:
  - claim: The training loss falls with the learning rate
    trend: train_loss
    over: lr
    expect: {rank_correlation: {below: 0}}
  - claim: It rises with it
    trend: train_loss
    over: lr
    expect: {rank_correlation: {above: 0}}
  - claim: It was measured on a machine called four
    trend: train_loss
    over: lr
    where: {host: four}
    expect: {rank_correlation: {above: 0}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has results."""
    path = tmp_path_factory.mktemp("fit") / "tiny.yaml"
    path.write_text(STUDY)
    trained(path, path.parent / "results")
    return path


def test_verdicts(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(study), f"results={study.parent / 'results'}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "holds 1. The training loss falls with the learning rate" in out
    assert "fails 2. It rises with it" in out
    assert "undecided 3. It was measured on a machine called four not fitted" in out
    assert "n = 6" in out and "expected below 0" in out


def test_json(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(study), f"results={study.parent / 'results'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found] == ["holds", "fails", "undecided"]
    assert found[0]["estimates"]["rank_correlation"]["value"] == pytest.approx(-1.0)
    assert found[2]["estimates"]["rank_correlation"]["value"] is None


def test_a_results_folder_is_a_study_too(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(study.parent / "results")]) == 0
    assert "holds" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [
    (["analysis=[]"], "has no analysis: block"), (["results=/nowhere/at/all"], "no such results folder"),
    (['analysis=[{claim: c, trend: tran_loss, over: lr}]'], "did you mean 'train_loss'")])
def test_bad_input(study: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = [] if any(word.startswith("results") for word in words) else [f"results={study.parent / 'results'}"]
    assert main(["fit", str(study), *words, *results]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
