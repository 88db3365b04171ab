"""A folder that holds trials of other settings too: every verdict, table and figure is of the study's own trials, what
is left out is said, and no study's file is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import analysis
from orchestrator import cli
from orchestrator.conclude import conclude
from orchestrator.folder import Folder
from orchestrator.provenance import write_study
from orchestrator.run import Observed, Outcome, look, run
from orchestrator.store import Store
from orchestrator.survey import survey
from search_spaces import Study, load_study
from trials import records
from trials.errors import UserError
from trials.records import TABLES, Rows

STUDY = """
study: mix
trial:
  task: {name: gaussian_regression, dim: 4, samples: 32}
  model: {name: mlp, depth: 0}
  optimizer: {name: sgd}
  budget: {steps: 4}
space:
  lr: [0.01, 0.02, 0.05, 0.1, 0.2]
analysis:
- {claim: power, law: power, y: train_loss, x: lr, expect: {exponent: {below: -0.2}}}
"""
# Overrides, and the exponent of their trials: judged together they have neither.
SETTINGS = {"trial.optimizer.momentum=0.9": -0.9, "trial.budget.steps=8": -0.1, "trial.seed=7": 0.5}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    (tmp_path / "mix.yaml").write_text(STUDY)
    return tmp_path


def commit(study: Study, folder: str, exponent: float, most: int | None = None) -> None:
    """What ``run`` would leave of the study, with train_loss = lr^exponent up to 1%; at most so many trials."""
    where = Folder.open(folder)
    store = Store.open(where, records.schemas(study.column_types, [*study.axis_columns, "momentum", "budget_steps"]))
    observed = Observed(where, store.statuses)
    write_study(study, where, survey(study, store.statuses, observed).others > 0)
    while True:  # an adaptive design asks for more once it has seen these
        specs = []
        for spec in study.trials(observed):
            if spec is None:
                break
            specs.append(spec)
        new = [spec for spec in specs if spec.trial_id not in store.statuses][:most]
        if not new:
            return
        rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
        for i, spec in enumerate(new):
            own = {**spec.flat(), "trial_id": spec.trial_id}
            loss = own["lr"] ** exponent * (1 + 0.01 * (i % 3 - 1))
            rows["trials"].append({**own, "status": "completed", "train_loss": loss, "test_loss": loss, "steps": 4})
            rows["steps"].append({**own, "step": 4, "train_loss": loss})
            rows["layers"].append({**own, "step": 4, "layer": "fc", "kind": "linear", "rows": 4, "cols": 1,
                                   "stable_rank": loss})
        store.commit(Rows.build(store.schemas, rows))
        if most is not None:
            return


def fitted(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["fit", *words, "--json"]) == 0
    [verdict] = json.loads(capsys.readouterr().out)
    return dict(verdict)


def mixed() -> Study:
    """R holds the study and three others of its settings, alone/R the study only."""
    study = load_study("mix.yaml")
    for override, exponent in SETTINGS.items():
        commit(load_study("mix.yaml", [override]), "R", exponent)
    for folder in ("R", "alone/R"):
        commit(study, folder, -0.5)
    return study


def test_claims_are_judged_on_the_studys_own_trials(capsys: pytest.CaptureFixture[str]) -> None:
    mixed()
    alone = fitted(capsys, "mix.yaml", "results=alone/R")
    assert alone["left_out"] == 0 and alone["estimates"]["exponent"]["value"] == pytest.approx(-0.5, abs=0.02)
    for words in (["mix.yaml", "results=R"], ["R"]):
        assert fitted(capsys, *words) == {**alone, "left_out": 15}
    for override, exponent in SETTINGS.items():
        found = fitted(capsys, "mix.yaml", override, "results=R")
        assert (found["n"], found["left_out"]) == (5, 15)
        assert found["estimates"]["exponent"]["value"] == pytest.approx(exponent, abs=0.02)
    narrowed = fitted(capsys, "mix.yaml", "space.lr=[0.01,0.02,0.05]", "results=R")
    assert (narrowed["n"], narrowed["left_out"]) == (3, 17)
    widened = fitted(capsys, "mix.yaml", "space.lr=[0.01,0.02,0.05,0.1,0.2,0.4]", "results=R")
    assert widened["estimates"] == alone["estimates"]
    assert cli.main(["fit", "mix.yaml", "results=R"]) == 0
    assert "15 of 20 trials in the folder are none that this study asks for; left out" in capsys.readouterr().out
    assert cli.main(["fit", "mix.yaml", "trial.batch_size=2", "results=R"]) == 2
    assert "no trial of this study is there, only 20 that it does not ask for" in capsys.readouterr().err


def test_so_are_the_table_the_figures_and_the_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = mixed()
    for folder in ("R", "alone/R"):
        assert conclude(study, folder, Outcome(look(study, Folder.open(folder)), None), Console()) == 0
        said = capsys.readouterr().out
        assert ("15 of 20 trials in the folder" in said) == (folder == "R")
        assert cli.main(["report", "mix.yaml", f"results={folder}"]) == 0
        assert ("15 of 20 trials in the folder" in capsys.readouterr().out) == (folder == "R")
    assert (here / "R/summary.csv").read_text() == (here / "alone/R/summary.csv").read_text()
    for figure in ("summary.png", "report/claim-1.png", "report/overview.png"):
        assert (here / "R" / figure).read_bytes() == (here / "alone/R" / figure).read_bytes(), figure
    page = (here / "R/report/index.html").read_text()
    assert "5 trials: 5 completed; 15 of 20 trials in the folder are none that this study asks for; left out" in page
    everything = analysis.load("R")
    assert len(everything.trials) == len(everything.layers) == 20 and "momentum" in everything.axes
    own = everything.only(set(everything.trials.trial_id[:3]), ["lr"])
    assert len(own.trials) == len(own.layers) == 3 and own.axes == ["lr"]


def test_an_adaptive_design_knows_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["space.lr={low: 0.01, high: 1, scale: log}", "design={name: tpe, trials: 8, batch: 4}"]
    study = load_study("mix.yaml", words)
    commit(load_study("mix.yaml", ["trial.seed=7"]), "R", 0.5)
    for folder in ("R", "alone/R"):
        commit(study, folder, -0.5)
    alone = fitted(capsys, "mix.yaml", *words, "results=alone/R")
    assert alone["n"] == 8
    assert fitted(capsys, "mix.yaml", *words, "results=R") == {**alone, "left_out": 5}
    commit(load_study("mix.yaml", [*words, "trial.seed=3"]), "R", 0.1, most=3)  # a run that has only begun
    assert fitted(capsys, "mix.yaml", *words, "trial.seed=3", "results=R")["n"] == 3
    assert fitted(capsys, "R")["left_out"] == 13  # the study that was run last


def test_status_says_what_else_is_there_and_no_study_file_is_lost(
        here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four runs into one folder, twice: each settings' trials have a file that describes them, once."""
    for _ in range(2):
        mixed()
        shutil.copytree("R", "results/g5", dirs_exist_ok=True)
        for name in ("R", "g5", "results/g5", (here / "R").as_uri()):
            assert cli.main(["status", name]) == 0
            out = capsys.readouterr().out
            assert "completed  5\n" in out and "to run     0 of 5" in out
            assert "15 trials that this study does not ask for are in the folder too; study.1.yaml, study.2" in out
        assert {path.name for path in (here / "R").glob("*.yaml")} >= {"study.yaml", "study.1.yaml", "study.3.yaml"}
        kept = [load_study(str(path)) for path in sorted((here / "R").glob("study*.yaml"))]
        assert {spec.trial_id for study in kept for spec in study.trials(lambda ids: []) if spec} == set(
            analysis.load("R").trials.trial_id)
    assert len(kept) == 5  # the first of the second round is the last of the first one
    assert cli.main(["plan", "mix.yaml", "results=R"]) == 0
    assert "15 trials that this study does not ask for" in capsys.readouterr().out


def test_a_study_that_grows_leaves_no_old_file(here: Path) -> None:
    for lr in ("[0.01,0.02]", "[0.01,0.02,0.05]"):
        commit(load_study("mix.yaml", [f"space.lr={lr}"]), "R", -0.5)
    assert [path.name for path in (here / "R").glob("*.yaml")] == ["study.yaml"]


def never() -> Any:
    raise AssertionError("connected")


def test_the_folder_of_another_study_is_refused_unless_asked_for(
        here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = mixed()
    (here / "mix2.yaml").write_text(STUDY.replace("study: mix", "study: mix2"))
    (here / "other.yaml").write_text(STUDY.replace("study: mix", "study: other").replace("steps: 4", "steps: 5"))
    before = {path: path.read_bytes() for path in (here / "R").rglob("*") if path.is_file()}
    for name in ("mix2", "other"):
        assert cli.main(["run", f"{name}.yaml", "results=R"]) == 2
        out, err = capsys.readouterr()
        assert f"R: holds the study 'mix', not '{name}'" in err and "into=R" in err and err.count("\n") == 1 and not out
    assert {path: path.read_bytes() for path in (here / "R").rglob("*") if path.is_file()} == before
    for verb in ("status", "fit", "report", "plan"):
        assert cli.main([verb, "mix2.yaml", "results=R"]) == 2
        assert "R: holds the study 'mix', not 'mix2'" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (here / "R").rglob("*") if path.is_file()} == before
    assert cli.main(["status", "mix2.yaml", "into=R"]) == 0
    capsys.readouterr()
    renamed = load_study("mix2.yaml")
    assert run(renamed, "R", never, Console(), into=True).survey.finished  # the same trials: nothing to run
    for again in (renamed, study):  # both are at home there now
        assert run(again, "R", never, Console()).survey.others == 15
    with pytest.raises(UserError, match="holds the study 'mix2', not 'other'"):
        run(load_study("other.yaml"), "R", never, Console())
    (here / "R/study.yaml").write_text("[not a study")
    assert run(study, "R", never, Console()).survey.finished


@pytest.mark.parametrize("verb", ["status", "fit", "report", "plan"])
def test_a_folder_without_study_yaml_says_what_to_give(
        here: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    mixed()
    (here / "R/study.yaml").unlink()
    assert cli.main([verb, "R"]) == 2
    assert "R: has no study.yaml; give the study's own file, and results=R" in capsys.readouterr().err
    assert cli.main([verb, "mix.yaml", "results=R"]) == 0


