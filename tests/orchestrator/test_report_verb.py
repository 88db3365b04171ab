"""`phasesweep report STUDY`: a page and figures beside the results, or one line and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.folder import Folder
from orchestrator.provenance import study_file
from orchestrator.store import Store
from search_spaces import load_study
from trials import records
from trials.records import TABLES, Rows

STUDY = """
study: mine
question: Which <rate>?
trial: {task: digits, model: {name: mlp, width: 8, depth: 1}, optimizer: {name: sgd, lr: 0.1}, budget: {steps: 50}}
space:
  lr: {low: 0.001, high: 1, num: 6, scale: log}
  seed: {replicates: 2}
"""
CLAIM = """
analysis:
- {claim: loss falls with the rate, law: power, y: test_loss, x: lr, expect: {exponent: {below: -0.4}}}
- {claim: it rises, law: power, y: test_loss, x: lr, expect: {exponent: {above: 0}}}
- {claim: matched, law: power, y: test_loss, x: lr, at: {step: 7}, expect: {exponent: {below: 0}}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the study in mine.yaml and results where test_loss = lr^-1/2, up to 1%."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(STUDY + CLAIM)
    study = load_study("mine.yaml")
    store = Store.open(Folder.open("results/mine"), records.schemas(study.column_types, study.axis_columns))
    rows = {table: [] for table in TABLES}
    for i, spec in enumerate(study.trials(lambda ids: [])):
        own = {**spec.flat(), "trial_id": spec.trial_id}
        rows["trials"].append({**own, "status": "completed", "test_loss": own["lr"] ** -0.5 * (1 + 0.01 * (i % 3 - 1)),
                               "steps": 50, "wall_time": 1.0})
        rows["steps"].append({**own, "step": 50, "test_loss": 1.0})
    store.commit(Rows.build(store.schemas, rows))
    (tmp_path / "results/mine/study.yaml").write_bytes(study_file(study))
    return tmp_path


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    before = below(Path.cwd())
    assert cli.main(["report", *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and below(Path.cwd()) == before
    return err


def test_a_page_and_its_figures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "mine.yaml"]) == 0
    out, err = capsys.readouterr()
    assert not err
    said = [line.split() for line in out.splitlines()]
    assert [what for what, _ in said] == ["figure"] * (len(said) - 1) + ["report"]
    assert below(here / "results/mine/report") == {Path(path).name for _, path in said}
    assert {"claim-1.png", "claim-2.png", "overview.png", "index.html"} <= below(here / "results/mine/report")
    assert "claim-3.png" not in below(here / "results/mine/report")  # nothing was measured near step 7
    page = (here / "results/mine/report/index.html").read_text(encoding="utf-8")
    for words in ("Which &lt;rate&gt;?", 'class="verdict holds"', 'class="verdict fails"', 'class="verdict undecided"',
                  "−0.5", "below -0.4", "Written by phasesweep", "12 trials: 12 completed"):
        assert words in page, words
    assert "claims.yaml" not in page and "phasesweep report study.yaml" in page
    assert page.count("data:image/png") == len(said) - 1  # each figure, once
    assert cli.main(["status", "mine.yaml"]) == 0  # results are as good as before


def test_a_study_that_is_asked_about_otherwise_than_it_was_run(here: Path) -> None:
    (here / "other.yaml").write_text(STUDY)
    assert cli.main(["report", "other.yaml", "results=results/mine"]) == 0
    page = (here / "results/mine/report/index.html").read_text(encoding="utf-8")
    assert "claims nothing" in page and "phasesweep report claims.yaml" in page
    (here / "results/mine/study.yaml").unlink()  # an older store, or tables copied by hand
    assert cli.main(["report", "other.yaml", f"results={(here / 'results/mine').as_uri()}"]) == 0
    assert "claims.yaml" not in (here / "results/mine/report/index.html").read_text(encoding="utf-8")


def test_bad_input_is_one_line_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such results folder" in complaint(capsys, "mine.yaml", "results=nowhere")
    assert "did you mean" in complaint(capsys, "mine.yml")
    assert "no such key" in complaint(capsys, "mine.yaml", "nosuch=1")
    (here / "results/mine/report").write_text("in the way")
    assert "cannot write results/mine/report/claim-1.png" in complaint(capsys, "mine.yaml")
