"""Every reader, and the next run, notices a part or table that is copied, foreign, missing, swapped or renamed: one
line that names it and says what to do. A run leaves the folder as an undisturbed one is, but for trials that are
lost."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import analysis
from orchestrator import cli, parts
from orchestrator.folder import Folder
from orchestrator.store import Store, committed
from search_spaces import load_study
from trials import partfiles, records
from trials.errors import UserError
from trials.records import TABLES, Rows

STUDY = """
study: s
trial: {task: digits, model: {name: mlp, width: 8, depth: 1}, optimizer: {name: sgd}, budget: {steps: 50}}
space: {lr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
analysis: [{claim: c, law: power, y: test_loss, x: lr, expect: {exponent: {below: 0}}}]
"""


def rows(store: Store, numbers: range) -> Rows:
    """Trials of the study; the tables have 2, 4 and 4 rows for each."""
    listed: dict[str, list[dict[str, object]]] = {table: [] for table in TABLES}
    for i, spec in enumerate(load_study("s.yaml").trials(lambda ids: [])):
        if spec is None or i not in numbers:
            continue
        own = {**spec.flat(), "trial_id": spec.trial_id}
        listed["trials"].append({**own, "status": "completed", "test_loss": 1 + i, "steps": 50})
        for step in (0, 50):
            listed["steps"].append({**own, "step": step})
            for layer in ("fc1", "fc2"):
                listed["layers"].append({**own, "step": step, "layer": layer, "kind": "linear", "stable_rank": 1.0 + i})
                listed["spectra"].append({**own, "step": step, "layer": layer, "eigenvalues": [2.0 + i, 1.0]})
    return Rows.build(store.schemas, listed)


def opened() -> Store:
    study = load_study("s.yaml")
    return Store.open(Folder.open("R"), records.schemas(study.column_types, study.axis_columns))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with R: six trials in the parts 0, 1 and 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 0)
    (tmp_path / "s.yaml").write_text(STUDY)
    store = opened()
    for first in (0, 2, 4):
        store.commit(rows(store, range(first, first + 2)))
    (tmp_path / "R/study.yaml").write_text(STUDY)
    return tmp_path


def part(table: str, number: int = 1) -> Path:
    return Path("R", partfiles.name(table, number))


def copied(name: str) -> Callable[[], None]:
    return lambda: (shutil.copy(part("layers"), Path("R/layers", name)), None)[1]


def swapped(one: Path, other: Path) -> None:
    one.rename("x")
    other.rename(one)
    Path("x").rename(other)


def older() -> None:
    """A backup of one table, made before its last commit."""
    shutil.copy(part("layers"), part("layers", 2))


def cut(file: Path) -> None:
    """The footer is whole, and what it says of the columns is not where it says."""
    data = file.read_bytes()
    file.write_bytes(data[:50] + data[59:])


def group_copied() -> None:
    for table in TABLES:
        shutil.copy(part(table), part(table, 7))


# What was done, and a word of the line that says so; whether ``run`` leaves it to the user; trials lost otherwise.
HARM: dict[str, tuple[Callable[[], object], str, bool, int]] = {
    "a browser's copy": (copied("part-00001 (1).parquet"), "part-00001 (1).parquet", True, 0),
    "a conflicted copy": (copied("part-00001 (conflicted copy).parquet"), "conflicted copy", True, 0),
    "six digits": (copied("part-000001.parquet"), "part-000001.parquet", True, 0),
    "one digit": (copied("part-1.parquet"), "part-1.parquet", True, 0),
    "Arabic digits": (copied("part-٠٠٠٠١.parquet"), "part-", True, 0),
    "another ending": (copied("part-00001.parquet.bak"), "part-00001.parquet.bak", True, 0),
    "a foreign file": (lambda: Path("R/layers/notes.txt").write_text("x"), "notes.txt", True, 0),
    "a folder in it": (lambda: Path("R/steps/old").mkdir(), "old is a folder", True, 0),
    "a folder as part": (lambda: Path("R/steps/part-00009.parquet").mkdir(), "part-00009.parquet is a folder", True, 0),
    "a dangling part": (lambda: (part("spectra").unlink(), part("spectra").symlink_to("nowhere")),
                        "spectra/part-00001.parquet: is missing", False, 2),
    "a table that is a file": (lambda: (shutil.rmtree("R/layers"), Path("R/layers").write_text("x")),
                               "R/layers: a file", True, 0),
    "a table deleted": (lambda: shutil.rmtree("R/layers"), "layers/part-00000.parquet: is missing", False, 6),
    "spectra deleted": (lambda: shutil.rmtree("R/spectra"), "spectra/part-00000.parquet: is missing", False, 6),
    "a dangling table": (lambda: (shutil.rmtree("R/spectra"), Path("R/spectra").symlink_to("/nowhere/at/all")),
                         "R/spectra: a link that leads nowhere", True, 0),
    "tables swapped": (lambda: swapped(Path("R/layers"), Path("R/steps")), "holds the table", False, 6),
    "a part missing": (lambda: part("steps").unlink(), "steps/part-00001.parquet: is missing", False, 2),
    "a trials part missing": (lambda: part("trials").unlink(), "trials/part-00001.parquet: is missing", False, 2),
    "parts swapped": (lambda: swapped(part("layers", 1), part("layers", 2)), "layers/part-0000", False, 4),
    "a part renamed": (lambda: part("spectra", 2).rename(part("spectra", 3)), "part-0000", False, 2),
    "another's part": (older, "layers/part-00002.parquet", False, 2),
    "a part cut short": (lambda: part("spectra").write_bytes(part("spectra").read_bytes()[:-9]), "spectra", False, 2),
    "a part cut in its middle": (lambda: cut(part("layers")), "9 bytes of it are missing", False, 2),
    "four parts copied": (group_copied, "trials/part-00007.parquet: holds the trials", False, 0),
}
READERS = ["status", "plan", "fit", "report", "query"]


@pytest.mark.parametrize("name", HARM)
def test_it_is_noticed_by_all(here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sound = {table: pd.read_parquet(f"R/{table}") for table in TABLES}
    harm, word, left, lost = HARM[name]
    harm()
    before = sorted(Path("R").rglob("*"))
    for verb in READERS:
        assert cli.main([verb, "R", *(["SELECT count(*) FROM trials"] if verb == "query" else [])]) == 2, verb
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1 and word in err, err
        assert "move it" in err or "run the study again" in err, err
    with pytest.raises(UserError, match=re.escape(word)):
        tables = analysis.load("R")
        for table in TABLES:
            tables.table(table)
    assert sorted(Path("R").rglob("*")) == before
    if left:
        with pytest.raises(UserError, match="move it away"):
            opened()
        return
    store = opened()
    assert store.warnings and len(store.statuses) == 6 - lost
    store.commit(rows(store, range(6)))
    assert opened().warnings == []
    for table, frame in sound.items():
        keys = [key for key in ("trial_id", "step", "layer") if key in frame]
        found = pd.read_parquet(f"R/{table}").sort_values(keys, ignore_index=True)
        pd.testing.assert_frame_equal(found, frame.sort_values(keys, ignore_index=True))


@pytest.mark.parametrize("table", ["steps", "layers", "spectra"])
@pytest.mark.parametrize("number", [3, 7])
def test_a_copy_where_a_commit_might_have_begun_counts_for_nothing(here: Path, table: str, number: int,
                                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """Readers cannot tell it from the beginning of a commit."""
    sound = analysis.load("R").table(table)
    shutil.copy(part(table), part(table, number))
    pd.testing.assert_frame_equal(analysis.load("R").table(table), sound)
    assert cli.main(["query", "R", "--csv", f"SELECT count(*) FROM {table}"]) == 0
    assert capsys.readouterr().out.split() == ["count_star()", str(len(sound))]
    assert len(opened().statuses) == 6 and not part(table, number).exists()


def test_parts_of_older_versions_are_read_and_checked_as_far_as_they_tell(
        here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no name of their group; a copy of all four is noticed by the trials in it."""
    shutil.rmtree("R")
    monkeypatch.setattr(parts, "new_group", str)
    store = opened()
    store.commit(rows(store, range(2)))
    monkeypatch.undo()
    monkeypatch.chdir(here)
    store = opened()
    store.commit(rows(store, range(2, 3)))
    store.discard(store.statuses)
    store.commit(rows(store, range(3)))
    parts.check(Folder.open("R"))
    assert len(analysis.load("R").layers) == 12 and partfiles.GROUP.encode() not in part("steps", 0).read_bytes()
    for table in TABLES:
        shutil.copy(part(table, 0), part(table, 7))
    for look in (lambda: analysis.load("R"), lambda: committed(Folder.open("R"))):
        with pytest.raises(UserError, match="R: 3 trials are there twice"):
            look()
    assert len(opened().statuses) == 3


def others(store: Store, place: int) -> Rows:
    """Six more trials."""
    renamed = {}
    for name, table in rows(store, range(6)).tables.items():
        ids = pa.array([f"{place}-{key}" for key in table["trial_id"].to_pylist()], pa.string())
        renamed[name] = table.set_column(table.column_names.index("trial_id"), table.schema.field("trial_id"), ids)
    return Rows(renamed)


@pytest.mark.parametrize("what", ["commits", "new parts", "discards"])
def test_what_a_run_does_meanwhile_is_no_damage(here: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Whatever a reader has seen of one table when a run replaces parts of all four."""
    if what == "commits":
        monkeypatch.setattr("orchestrator.store.PART_BYTES", 2**20)
    store, real = opened(), partfiles.footers
    times = itertools.count()

    def then_it_changes(*words: Any) -> Any:
        found = real(*words)
        if (place := next(times)) % 4 < 3 and place < 12:
            if what == "discards":
                store.discard(list(store.statuses)[2:3])
            else:
                store.commit(others(store, place))
        return found

    monkeypatch.setattr(partfiles, "footers", then_it_changes)
    parts.check(Folder.open("R"))
    tables = analysis.load("R")
    for table in TABLES:
        assert set(tables.table(table).trial_id) <= set(tables.ids.to_pylist())
    assert next(times) > 6
