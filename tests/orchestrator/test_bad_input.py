"""Whatever is wrong with what the user gave: exit 2, one line on stderr that names the place and the fix, and nothing
written. Through the command line, in this process; what needs Ray is in test_usercode_run.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import mounted

from orchestrator.cli import main
from orchestrator.folder import Folder
from orchestrator.lease import Lease
from orchestrator.store import Store
from search_spaces import load_study
from trials import records
from trials.records import TABLES, VERSION_KEY, Rows

STUDY = """
study: mine
question: Which rate?
trial:
  task: digits
  model: {name: mlp, width: 8}
  optimizer: {name: sgd, lr: 0.1}
  budget: {epochs: 1}
space:
  lr: [0.01, 0.1]
  seed: {replicates: 2}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the study in mine.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def results(here: Path) -> Path:
    """results/mine, with all four trials in it."""
    study, folder = load_study("mine.yaml"), Folder.open("results/mine")
    store = Store.open(folder, records.schemas(study.column_types, study.axis_columns))
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for spec in study.trials(lambda ids: []):
        assert spec is not None
        own = {**spec.flat(), "trial_id": spec.trial_id}
        rows["trials"].append({**own, "status": "completed", "measure": study.measure.json, "test_loss": 0.5})
        rows["steps"].append({**own, "step": 0})
    store.commit(Rows.build(store.schemas, rows))
    return here / "results" / "mine"


def files(root: Path) -> dict[str, bytes | None]:
    """Everything below ``root``, hidden things and empty folders too."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def complaint(capsys: pytest.CaptureFixture[str], *words: object, untouched: bool = True) -> str:
    """What ``phasesweep WORDS`` complains of."""
    before = files(Path.cwd())
    status = None
    try:
        status = main([str(word) for word in words])
    except SystemExit as exit:  # argparse
        status = exit.code
    err = capsys.readouterr().err
    assert status == 2
    assert err.startswith("phasesweep: ") and err.endswith("\n") and err.count("\n") == 1, err
    assert not untouched or files(Path.cwd()) == before
    return err


VERBS = ("plan", "run", "status")


@pytest.mark.parametrize(("override", "said"), [
    ("trial.optimizer.lrr=1", ["mine.yaml: trial.optimizer.lrr", "did you mean 'lr'?"]),
    ("trail.task=digits", ["trail.task", "did you mean 'trial'?"]),
    ("space.learning=[1]", ["space.learning", "no such key in the trial"]),
    ("trial.optimizer.lr=fast", ["trial.optimizer.lr", "expected a number", "'fast'"]),
    ("trial.optimizer.lr=-1", ["trial.optimizer.lr", "of at least 0", "-1"]),
    ("trial.optimizer.lr=.nan", ["trial.optimizer.lr", "expected a number"]),
    ("space.lr=[]", ["space.lr", "at least one value"]),
    ("space.lr=[-1]", ["space.lr.values[0]", "of at least 0"]),
    ("space={}", None),  # not wrong: one trial; see below
    ("trial.batch_size=5000", ["trial.batch_size", "at most 1347", "digits", "5000"]),
    ("trial.batch_size=0", ["trial.batch_size", "at least 1"]),
    ("trial.knobs={droput: {}}", ["trial.knobs.droput", "did you mean 'dropout'?"]),
    ("trial.task=digit", ["trial.task.name", "did you mean 'digits'?"]),
    ("trial.model.name=mpl", ["trial.model.name", "did you mean 'mlp'?"]),
    ("trial.optimizer.name=sdg", ["trial.optimizer.name", "did you mean 'sgd'?"]),
    ("trial.budget={epochs: 0}", ["trial.budget", "either steps or epochs"]),
    ("study=../../etc", ["study", "expected a name", "'../../etc'"]),
    ("study=/etc", ["study", "expected a name"]),
    ("design={name: gird}", ["design.name", "did you mean 'grid'?"]),
    ("measure={weights: lgo}", ["measure.weights", "did you mean 'log'?"]),
    ("resources={cpu: 0}", ["resources.cpu", "(0, 10000]"]),
    ("device=gpu", ["device", "did you mean 'cpu'?"]),
    ("lr", ["'lr'", "expected key=value"]),
    ("=3", ["'=3'", "expected key=value"]),
    ("trial..lr=3", ["'trial..lr=3'", "expected key=value"]),
    ("trial.optimizer.lr=[1", ["'trial.optimizer.lr=[1'", "line 1"]),
    ("results=", ["results=", "expected a folder or a URI"]),
    ("results=nosuch://bucket/x", ["nosuch://bucket/x", "expected a path, or a URI"]),
])
def test_a_bad_override(capsys: pytest.CaptureFixture[str], override: str, said: list[str] | None) -> None:
    if said is None:
        assert main(["status", "mine.yaml", override]) == 0
        assert "1 of 1" in capsys.readouterr().out
        return
    for verb in VERBS:
        line = complaint(capsys, verb, "mine.yaml", override)
        assert all(words in line for words in said), line


@pytest.mark.parametrize(("text", "said"), [
    ("", "expected a mapping with the keys study, question"),
    ("- a\n- b\n", "expected a mapping with the keys study, question"),
    ("just words\n", "expected a mapping with the keys study, question"),
    ("study: x\n\ttrial: 3\n", "line 2"),
    ("study: [1, 2\ntrial: 3\n", "line 2"),
    ("study: x\nstudy: y\n", "line 2: study: duplicate key"),
    ("study: &a x\nquestion: *a\n", "aliases (*name) are not allowed"),
    ("study: !!python/object/apply:os.system ['touch pwned']\n", "is not allowed"),
    ("study: x\n", "missing; every"),
    ("study: \xff\n", None),
])
def test_a_file_that_is_no_study(capsys: pytest.CaptureFixture[str], here: Path, text: str, said: str | None) -> None:
    (here / "bad.yaml").write_bytes(text.encode("latin-1"))
    for verb in VERBS:
        line = complaint(capsys, verb, "bad.yaml")
        assert line.startswith("phasesweep: bad.yaml: ")
        assert (said or "expected UTF-8 text") in line


@pytest.mark.parametrize(("ref", "said"), [
    ("mien.yaml", "no such file; did you mean 'mine.yaml'?"),
    ("nowhere/mine.yaml", "no such file"),
    ("batch_size_phase", "did you mean 'batch_size_phases'?"),
    (".", "no bundled study has this name"),
    ("/dev/null", ""),
    ("", ""),
])
def test_a_study_that_is_not_there(capsys: pytest.CaptureFixture[str], ref: str, said: str) -> None:
    for verb in VERBS:
        assert said in complaint(capsys, verb, ref)


@pytest.mark.parametrize(("words", "said"), [
    ([], "VERB"), (["rnu"], "invalid choice: 'rnu'"), (["--nosuch"], "VERB"),
    (["run"], "phasesweep run --help"), (["run", "mine.yaml", "--nosuch"], "--nosuch"),
    (["list", "knob"], "invalid choice: 'knob'"), (["query", "mine.yaml"], "SQL"),
])
def test_words_that_are_no_command(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    line = complaint(capsys, *words)
    assert said in line and "--help" in line


@pytest.mark.parametrize("where", ["mine.yaml/below", "/proc/below", "/dev/null"])
def test_results_that_cannot_be_written(capsys: pytest.CaptureFixture[str], where: str) -> None:
    line = complaint(capsys, "run", "mine.yaml", f"results={where}")
    assert where in line and "results=PATH" in line


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(tmp_path_factory.mktemp("mounts") / "small", "size=16k") as path:
        yield path


@pytest.fixture
def locked_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(tmp_path_factory.mktemp("mounts") / "locked", "ro") as path:
        yield path


def test_a_read_only_disk(capsys: pytest.CaptureFixture[str], locked_disk: Path) -> None:
    line = complaint(capsys, "run", "mine.yaml", f"results={locked_disk / 'mine'}")
    assert "Read-only file system" in line and "results=PATH" in line


def test_a_full_disk(capsys: pytest.CaptureFixture[str], small_disk: Path) -> None:
    line = complaint(capsys, "run", "mine.yaml", f"results={small_disk / 'mine'}")
    assert str(small_disk) in line and "the disk is full" in line and "free space" in line
    left = [path.name for path in small_disk.rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".tmp") or name == ".lease"]
    assert main(["status", "mine.yaml", f"results={small_disk / 'mine'}"]) == 0
    assert "4 of 4" in capsys.readouterr().out


def test_a_full_disk_without_root(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))
    monkeypatch.setattr("os.fsync", full)
    line = complaint(capsys, "run", "mine.yaml", "results=out", untouched=False)
    assert "out/" in line and "the disk is full" in line
    assert not [path for path in Path("out").rglob("*") if path.is_file()]


def test_results_of_another_schema_version(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    part = results / "trials" / "part-00000.parquet"
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"999"}), part)
    for words in (*((verb, "mine.yaml") for verb in VERBS), ("query", "mine.yaml", "SELECT 1")):
        line = complaint(capsys, *words)
        assert "part-00000.parquet" in line and "schema version 999" in line and "results" in line


def test_files_that_are_not_ours(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), results / "trials" / "theirs.parquet")
    for verb in VERBS:
        line = complaint(capsys, verb, "mine.yaml")
        assert "theirs.parquet is not a part of this study" in line and "move it away" in line


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty"])
def test_a_damaged_part_is_named_by_whoever_reads(capsys: pytest.CaptureFixture[str], results: Path,
                                                  harm: str) -> None:
    part = results / "trials" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 255
    part.write_bytes({"cut": bytes(data[:len(data) // 2]), "empty": b"", "flipped": bytes(data)}[harm])
    # The checksum of a part is not a query's to check: it reads only the columns it needs.
    query = [("query", "mine.yaml", "SELECT count(*) FROM trials")] if harm != "flipped" else []
    for words in (("plan", "mine.yaml"), ("status", "mine.yaml"), *query):
        line = complaint(capsys, *words)
        assert "part-00000.parquet" in line and "run" in line and "again" in line


@pytest.mark.parametrize(("sql", "said"), [
    ("SELEC 1", "SELEC"), ("SELECT", "SELECT"), ("", "one SELECT statement"),
    ("SELECT lrr FROM trials", "no column called 'lrr'; the nearest are lr (in trials, "),
    ("SELECT 1 FROM trails", "did you mean 'trials'?"),
    ("SELECT 1; SELECT 2", "got 2 statements"), ("DROP TABLE trials", "only reads"),
    ("INSERT INTO trials SELECT * FROM trials", "only reads"), ("CREATE TABLE x AS SELECT 1", "only reads"),
    ("COPY trials TO 'out.csv'", "only reads"), ("ATTACH 'x.db'", "only reads"), ("PRAGMA database_list", ""),
    ("SELECT * FROM read_text('/etc/passwd')", ""), ("SELECT * FROM 'mine.yaml'", ""),
])
def test_sql_that_is_wrong_or_writes(capsys: pytest.CaptureFixture[str], results: Path, sql: str, said: str) -> None:
    assert said in complaint(capsys, "query", "mine.yaml", sql)


def test_a_query_takes_no_change_of_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "batch_size_phases", "SELECT 1", "space.lr=[0.1]"]) == 2
    assert "'space.lr=[0.1]': query asks all that is in a results folder" in capsys.readouterr().err


def test_a_query_before_anything_has_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such results folder; run the study first" in complaint(capsys, "query", "mine.yaml", "SELECT 1")
    assert "did you mean 'batch_size_phases'?" in complaint(capsys, "query", "batch_size_phase", "SELECT 1")


def test_a_second_driver(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    shutil.rmtree(results)
    with Lease(Folder.open("results/mine")):
        line = complaint(capsys, "run", "mine.yaml")
        assert f"pid {os.getpid()}" in line and "wait for it, or stop it" in line
        assert main(["status", "mine.yaml"]) == 0
        assert f"pid {os.getpid()}" in capsys.readouterr().out
    assert main(["status", "mine.yaml"]) == 0
    assert "none at work" in capsys.readouterr().out
