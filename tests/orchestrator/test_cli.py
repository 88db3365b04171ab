"""What the verbs print, and how they end. In this process: nothing here starts Ray."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator import cli, progress
from orchestrator.commands.list import COMPONENTS, compact, first_sentence
from orchestrator.folder import Folder
from orchestrator.lease import Lease
from orchestrator.store import Store
from search_spaces import list_studies, load_study
from trials import fields, records
from trials.knobs.base import KNOBS
from trials.records import TABLES, Rows

STUDY = """
study: mine
question: Which rate?
trial:
  task: digits
  model: {name: mlp, width: 8, depth: 1}
  optimizer: {name: sgd, lr: 0.1}
  budget: {steps: 50}
space:
  lr: {low: 0.001, high: 1000, num: 4, scale: log}
  model: [mlp, {name: mlp, depth: 2}]
  seed: {replicates: 3}
"""
# Of the 24 trials, in the order of the design; the others have not run.
STATUSES = ["completed"] * 9 + ["stopped"] * 2 + ["diverged"] * 3 + ["failed"] * 4
REASONS = {"failed": "ValueError: no [bold]good[/x] (my_model.py:5)", "diverged": "the loss of step 3 is not finite"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the study in mine.yaml, and a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "mine.yaml").write_text(STUDY)
    return tmp_path


def fill(ref: str, results: str, statuses: list[str]) -> None:
    """Commit the first trials of a study with these statuses and numbers that are easy to recognize."""
    study = load_study(ref)
    store = Store.open(Folder.open(results), records.schemas(study.column_types, study.axis_columns))
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for i, (spec, status) in enumerate(zip(study.trials(lambda ids: []), statuses, strict=False)):
        assert spec is not None
        own = {**spec.flat(), "trial_id": spec.trial_id}
        rows["trials"].append({**own, "status": status, "reason": REASONS.get(status), "steps": i,
                               "test_accuracy": i / 8 if status == "completed" else None})
        rows["spectra"].append({**own, "step": 0, "layer": "fc1", "eigenvalues": [i + j / 4096 for j in range(1500)]})
    store.commit(Rows.build(store.schemas, rows))


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert cli.main(list(words)) == status
    out, err = capsys.readouterr()
    assert not err
    return out


def plain(text: str) -> str:
    """On one line, without the lines of tables."""
    return " ".join(re.sub("[│┃━╇]", " ", text).split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["rnu"], []])
def test_the_first_word_imports_nothing_heavy(words: list[str]) -> None:
    code = ("import sys\nfrom orchestrator.cli import main\n"
            f"try: main({words!r})\nexcept SystemExit as exit: print('status', exit.code)\n"
            "print('heavy', *{'torch', 'ray', 'pyarrow', 'pandas', 'matplotlib', 'optuna'} & set(sys.modules), '.')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"status {0 if words[:1] in (['--help'], ['--version']) else 2}\nheavy .\n" in done.stdout


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    commands = Path(importlib.import_module("orchestrator.commands").__path__[0])
    assert set(cli.VERBS) == {path.stem for path in commands.glob("[a-z]*.py")} - {"common"}
    assert all(re.search(rf"^  {verb} ", out, re.MULTILINE) for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_each_verb_has_an_example_that_parses(verb: str, capsys: pytest.CaptureFixture[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main([verb, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    example = text.partition("\nexample:\n")[2].replace("\\\n", " ")
    assert max(map(len, text.partition("\nexample:\n")[0].splitlines())) <= 80
    words = shlex.split(example.rpartition("phasesweep ")[2])
    module, seen = importlib.import_module(f"orchestrator.commands.{verb}"), []
    monkeypatch.setattr(module, "main", lambda args, console: seen.append(args) or 0)
    assert cli.main(words) == 0 and len(seen) == 1


def test_the_examples_of_verbs_that_only_look_work(capsys: pytest.CaptureFixture[str]) -> None:
    fill("batch_size_phases", "results/batch_size_phases", ["completed"] * 30)
    for verb in ("list", "status", "query"):
        module = importlib.import_module(f"orchestrator.commands.{verb}")
        assert told(capsys, *shlex.split(module.EXAMPLE.replace("\\\n", " "))[1:])


@pytest.mark.parametrize("what", ["studies", *COMPONENTS, "metrics"])
def test_list_fits_a_terminal_and_cuts_no_name(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "list", what).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    names = (list_studies() if what == "studies" else COMPONENTS[what].classes if what in COMPONENTS  # type: ignore[attr-defined]
             else {column.name for columns in records.COLUMNS.values() for column in columns})
    assert names
    for name in names:
        assert any(line.startswith(f"{name} ") for line in lines), name


def test_list_says_what_a_study_takes(capsys: pytest.CaptureFixture[str]) -> None:
    out = plain(told(capsys, "list"))
    for study in list_studies().values():
        assert all(words in out for words in (study.question, study.source, f"{study.size:,} trials"))


@pytest.mark.parametrize("name", KNOBS.classes)
def test_a_knob_is_one_sentence_with_place_and_source_and_its_ranges(name: str,
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    sentence = first_sentence(KNOBS.classes[name])
    assert re.search(r"\(.*\b(1[89]|20)\d\d\b.*\)", sentence), "no source with a year"
    out = plain(told(capsys, "list", "knobs"))
    assert plain(sentence) in out
    for key, field in fields.declared(KNOBS.classes[name]).items():
        assert re.search(rf" {key} = \S+ in {re.escape(compact(field))}: {re.escape(plain(field.metadata['help']))}",
                         out)


@pytest.mark.parametrize(("field", "expected"), [
    (fields.real(0.5, low=0, high=1, open_high=True, help=""), "[0, 1)"),
    (fields.real(0.5, low=0, open_low=True, help=""), "(0, inf)"),
    (fields.real(0.5, help=""), "(-inf, inf)"),
    (fields.count(1, low=1, help=""), "{1, 2, ...}"),
    (fields.count(1, low=2, high=1000, help=""), "{2, ..., 1000}"),
    (fields.flag(True, help=""), "{true, false}"),
    (fields.choice("a", ("a", "b"), help=""), "{a, b}"),
])
def test_ranges_are_sets(field: Any, expected: str) -> None:
    assert compact(field) == expected


def test_status_counts_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert "to run 24 of 24" in plain(told(capsys, "status", "mine.yaml"))
    assert not Path("results").exists()
    fill("mine.yaml", "results/mine", STATUSES)
    out = plain(told(capsys, "status", "mine.yaml"))
    first = pd.read_parquet("results/mine/trials").query("status == 'failed'").iloc[0]
    for words in ("completed 9", "stopped 2", "diverged 3", "failed 4;", "to run 10 of 24", "driver none at work",
                  "4 ValueError: no [bold]good[/x]", "(my_model.py:5)", f"lr {first['lr']}, model mlp",
                  f"model_depth {first['model_depth']}, seed {first['seed']}"):
        assert words in out
    with Lease(Folder.open("results/mine")):
        assert re.search(r"driver host \S+, pid \d+, since", plain(told(capsys, "status", "mine.yaml")))


def test_a_results_folder_is_a_study_too(capsys: pytest.CaptureFixture[str]) -> None:
    fill("mine.yaml", "elsewhere/x", STATUSES)
    Path("elsewhere/x/study.yaml").write_text(STUDY)
    assert "to run 10 of 24" in plain(told(capsys, "status", "elsewhere/x"))
    assert "to run 18 of 32" in plain(told(capsys, "status", "elsewhere/x", "space.seed.replicates=4"))


def test_plan_writes_nothing_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    out = plain(told(capsys, "plan", "mine.yaml", "results=odd [/name]"))
    for words in ("question Which rate?", "optimizer.lr: 4 values, 0.001 to 1000.0", "model: 2 values, mlp",
                  "seed: 3 values, 0 to 2", "trials 24", "done none", "to run 24", "optimizer steps 1,200",
                  "results odd [/name]"):
        assert words in out
    assert [path.name for path in Path.cwd().iterdir()] == ["mine.yaml"]
    fill("mine.yaml", "results/mine", STATUSES)
    out = plain(told(capsys, "plan", "mine.yaml"))
    for words in ("done 9 completed, 3 diverged, 2 stopped", "failed 4, to be tried again", "to run 10",
                  "optimizer steps 500"):
        assert words in out


def test_plan_of_an_adaptive_design_scales_what_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(STUDY.replace(", num: 4", "") + "design: {name: tpe, trials: 20, batch: 4}\n")
    out = plain(told(capsys, "plan", "mine.yaml"))
    assert "optimizer.lr: 0.001 to 1000, log" in out
    assert "to run 60 at most; the design decides as it goes optimizer steps 3,000" in out


def test_plan_is_about_right() -> None:
    from orchestrator.estimate import estimate
    from trials.measure import Measure
    from trials.trainer import train

    study = load_study("mine.yaml", ["space={}", "trial.budget={steps: 1000}", "trial.optimizer.lr=0.01"])
    spec = next(study.trials(lambda ids: []))
    assert spec is not None
    measure = Measure("log", "log", "none")
    ratios = []
    for _ in range(3):  # others may use the machine for a while: the middle one counts
        timed = estimate(study, spec, spec, available=1).trial_seconds(1000, spec.batch_size, measure)
        ratios.append(timed / train(spec, measure).trial["wall_time"])
    assert 1 / 3 < sorted(ratios)[1] < 3


def test_query_prints_a_table_or_lists(capsys: pytest.CaptureFixture[str]) -> None:
    fill("mine.yaml", "results/mine", STATUSES)
    out = told(capsys, "query", "mine.yaml", "SELECT lr, count(*) AS n, sum(steps) FROM trials GROUP BY 1 ORDER BY 1")
    frame = pd.read_parquet("results/mine/trials").groupby("lr")["steps"].agg(["count", "sum"])
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "   lr ┃ n ┃ sum(steps)"
    assert lines[2:] == [f"{lr:>5g} │ {n} │ {total:>10}" for lr, n, total in frame.itertuples()]
    out = told(capsys, "query", "mine.yaml", "SELECT * FROM trials WHERE status = 'failed'")
    assert "row 4\n" in out and "row 5" not in out
    assert re.search(r"^  reason +ValueError: no \[bold\]good\[/x\] \(my_model.py:5\)$", out, re.MULTILINE)
    out = told(capsys, "query", "mine.yaml", "DESCRIBE trials")
    assert re.search(r"^lr +│ DOUBLE +│ YES *$", out, re.MULTILINE)
    assert "empty in these rows: key, default, extra" in out
    out = told(capsys, "query", "results/mine", "SELECT 1 AS \"[/x]\", 'a[/b]' AS y, NULL AS z FROM range(60)")
    assert "10 more rows" in out and "[/x]" in out and "a[/b]" in out and "nan" not in out.lower()


def test_query_as_csv_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    fill("mine.yaml", "results/mine", STATUSES)
    sql = "SELECT step, eigenvalues, t.reason FROM spectra JOIN trials t USING (trial_id) ORDER BY t.steps"
    out = told(capsys, "query", "mine", sql, "--csv", "results=results/mine")
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["step", "eigenvalues", "reason"] and len(rows) == len(STATUSES)
    for i, row in enumerate(rows):
        assert json.loads(row[1]) == [i + j / 4096 for j in range(1500)]
        assert row[2] == REASONS.get(STATUSES[i], "")


def test_whole_numbers_stay_whole_and_what_has_no_end_is_counted_to_a_limit(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fill("mine.yaml", "results/mine", STATUSES)
    sql = "SELECT CASE WHEN range < 8192 THEN range END AS n FROM range(8194) ORDER BY range"  # nulls in one batch
    assert told(capsys, "query", "mine", sql, "--csv").splitlines() == ["n", *map(str, range(8192)), '""', '""']
    monkeypatch.setattr("orchestrator.commands.query.COUNTED", 10_000)
    out = told(capsys, "query", "mine", "SELECT * FROM range(1000000000000)")
    assert "\n   49\n" in out and "more than 10,000 more rows" in out
    assert told(capsys, "query", "mine", "SELECT lr FROM trials WHERE false", "--csv") == "lr\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_query_that_is_stopped_says_so_in_a_line(number: signal.Signals) -> None:
    fill("mine.yaml", "results/mine", STATUSES)
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # whoever started the tests
    query = subprocess.Popen(
        [sys.executable, "-c", f"{heeds}; from orchestrator import cli; cli.console()", "query", "results/mine",
         "SELECT * FROM range(1000000000000)", "--csv"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert query.stdout and query.stdout.readline() == "range\n"
    query.send_signal(number)
    assert query.communicate(timeout=60)[1] == "phasesweep: query: interrupted\n" and query.returncode == 130


def test_output_cut_by_head_ends_well() -> None:
    done = subprocess.run(f"{sys.executable} -m orchestrator.cli list metrics | head -1; exit ${{PIPESTATUS[0]}}",
                          shell=True, executable="/bin/bash", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_a_terminal_without_unicode_is_served(here: Path) -> None:
    (here / "mine.yaml").write_text(STUDY.replace("Which rate?", "Which λ?"), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "orchestrator.cli", "plan", "mine.yaml"], capture_output=True,
                          text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "Which ??" in done.stdout


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> int:
        raise KeyboardInterrupt
    monkeypatch.setattr("orchestrator.commands.list.main", interrupted)
    assert cli.main(["list"]) == 130


def test_so_is_sigterm() -> None:
    code = ("import sys, time; from orchestrator import cli; from orchestrator.commands import list as verb; "
            "verb.main = lambda *_: [print('here', flush=True), time.sleep(60)]; "
            "sys.argv[1:] = ['list']; cli.console()")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"here\n"
        process.terminate()
        assert process.communicate(timeout=30) == (b"", b"") and process.returncode == 130


def test_a_complaint_is_one_line_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    cli.complain("a [/b]:\n  c \t " + "long " * 50)
    assert capsys.readouterr().err == "phasesweep: a [/b]: c " + ("long " * 50).strip() + "\n"


def test_durations_are_for_people() -> None:
    assert [progress.duration(s) for s in (0.4, 99, 100, 5990, 6000, 90061)] == [
        "0 s", "99 s", "2 min", "100 min", "1 h 40 min", "25 h 1 min"]
