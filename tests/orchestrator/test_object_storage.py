"""Results on a real object store's server: few requests, nothing lost, one line for what is wrong."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import driving
import objects
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from objects import BUCKET, ObjectStore
from support import Cli, Tables
from test_checkpoints import CHECKPOINT

import analysis
from orchestrator import folder as folders
from orchestrator import lease, parts, receipt
from orchestrator.checkpoints import FolderCheckpoints, Leftovers
from orchestrator.cli import main
from orchestrator.folder import Folder, Unreachable, patiently
from orchestrator.lease import Lease
from orchestrator.store import Store
from search_spaces import load_study
from trials import records, storage
from trials.errors import UserError
from trials.records import Rows
from trials.spec import TrialSpec

STUDY = """
study: far
question: Is a study on an object store like one on a disk?
trial:
  task: digits
  model: slow.py:build
  optimizer: {name: sgd, lr: 0.05}
  budget: {steps: 30}
space:
  lr: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
  seed: {replicates: 3}
analysis:
  - claim: A larger step trains faster
    trend: train_loss
    over: lr
    expect: {rank_correlation: {below: 0}}
measure: {training: log, weights: ends, eigenvalues: none, changes: none}
pack: off
device: cpu
"""
SLOW = """
import time
from torch import nn

class Slow(nn.Linear):
    def forward(self, x):
        time.sleep(0.01)
        return super().forward(x)

def build(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), Slow(64, outputs))
"""
# So that there are commits enough in a few seconds.
OFTEN = [sys.executable, "-c", "import sys; from orchestrator import cli, sweep; sweep.COMMIT_SECONDS = 0.1; "
                               "sys.exit(cli.main(sys.argv[1:]))"]
ENVIRONMENT = {**objects.CREDENTIALS, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Swept:
    """A sweep into ``uri`` that has had a hard life; ``out`` is what its last driver printed, ``commits`` and
    ``requests`` what its first did in the time between two of its commits."""

    study: Path
    uri: str
    out: str
    commits: int
    requests: Counter[str]


@pytest.fixture(scope="module")
def swept(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Its server goes away for a while, its driver is killed, and then it is run to its end."""
    study, uri = tmp_path_factory.mktemp("far") / "far.yaml", object_store.uri("swept")
    write(study.parent)
    driver = driving.start("run", study, f"results={uri}", command=OFTEN, environment=ENVIRONMENT)
    driving.wait(lambda: commits(object_store) >= 2, driver)  # the first makes the table
    object_store.counted()
    driving.wait(lambda: commits(object_store) >= 3, driver)
    requests = object_store.counted()
    object_store.down()
    time.sleep(4.0)  # longer than Arrow itself tries
    object_store.up()
    driving.wait(lambda: commits(object_store) >= 1, driver)
    driving.kill(driver)
    driver = driving.start("run", study, f"results={uri}", environment=ENVIRONMENT)
    out, _ = driving.ended(driver, 0)
    return Swept(study, uri, out, 3, requests)


def commits(store: ObjectStore) -> int:
    return sum(line.startswith("PUT /swept/trials/") for line in store.log)


def test_it_is_what_a_disk_would_hold(swept: Swept, bucket: ObjectStore, cli: Cli, stored: Tables,
                                      tmp_path: Path) -> None:
    cli("run", swept.study, f"results={tmp_path / 'near'}")
    pafs.copy_files(f"{BUCKET}/swept", str(tmp_path / "far"), source_filesystem=bucket.filesystem)
    near, far = stored(tmp_path / "near"), stored(tmp_path / "far")
    assert len(near["trials"]) == 18
    for table, frame in near.items():
        pd.testing.assert_frame_equal(far[table], frame, rtol=1e-7)
    assert visible(tmp_path / "far") == visible(tmp_path / "near")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_a_commit_is_a_put_for_each_table_that_it_changes(swept: Swept) -> None:
    """No folder is made, no file goes in three pieces; a worker that starts just then lists twice."""
    asked = swept.requests
    written = sum(count for line, count in asked.items() if line.startswith("PUT") and "lease" not in line)
    assert written <= 3 * swept.commits + 2, asked  # trials, steps, layers; one more commit may be under way
    assert asked.pop("LIST ", 0) <= 4, asked
    assert all(line.startswith("PUT") or "lease" in line for line in asked), asked
    assert sum(asked.values()) <= 5 * swept.commits + 8, asked  # with the lease's own, each ten seconds


def test_every_verb_takes_the_uri(swept: Swept, bucket: ObjectStore, capsys: pytest.CaptureFixture[str],
                                  tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept.study.parent)  # where its own code is
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    here = set(swept.study.parent.iterdir())

    def say(*words: object, status: int = 0) -> str:
        assert main([*map(str, words)]) == status, capsys.readouterr()
        return " ".join(capsys.readouterr().out.split())

    assert f"phasesweep fit {shlex.quote(swept.uri)} says why" in swept.out
    assert "completed 18 to run 0 of 18 driver none at work" in say("status", swept.uri)
    assert "18 completed" in say("plan", swept.uri)
    assert say("query", swept.uri, "SELECT count(*) AS n FROM trials", "--csv") == "n 18"
    assert json.loads(say("fit", swept.uri, "--json"))[0]["n"] == 18
    assert f"report s3://{BUCKET}/swept/report/index.html" in say("report", swept.uri)
    assert b"<html" in Folder.open(swept.uri).read("report/index.html")
    assert len(analysis.load(swept.uri).trials) == 18
    assert "far: 18 completed" in say("run", swept.uri)
    receipt.Receipt("slurm", [], "7", swept.uri, False).save(swept.uri)
    assert "written there by the sweep, nothing to bring" in say("fetch", swept.uri)
    assert set(swept.study.parent.iterdir()) - here <= {swept.study.parent / "__pycache__"}


def test_a_folder_of_nothing(bucket: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("status", "report", "fit", "plan"):
        assert main([verb, bucket.uri("nothing")]) == 2
        assert "has no study.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_a_part_that_is_not_what_was_written_runs_again(bucket: ObjectStore, tmp_path: Path, harm: str) -> None:
    folder, (schemas, rows) = Folder.open(bucket.uri(tmp_path.name)), some_trials(tmp_path)
    Store.open(folder, schemas).commit(rows)
    name = parts.name("steps", 0)
    if harm == "damaged":
        folder.write(name, folder.read(name)[:-40])
    else:
        folder.delete(name)
    again = Store.open(folder, schemas)
    assert again.statuses == {} and harm in " ".join(again.warnings) and name in again.warnings[0]
    assert "?" not in again.warnings[0]  # a file is named without the options that lead to the server
    again.commit(rows)
    assert Store.open(folder, schemas).statuses == {key: "completed" for key in rows.ids}


def test_requests_of_a_store(bucket: ObjectStore, tmp_path: Path) -> None:
    folder, (schemas, rows) = Folder.open(bucket.uri(tmp_path.name)), some_trials(tmp_path)
    store = Store.open(folder, schemas)
    bucket.counted()
    with Lease(folder) as held:
        bucket.counted()
        held.check()
        store.commit(rows)
        assert sorted(bucket.counted()) == [f"GET /{tmp_path.name}/.lease", f"HEAD /{tmp_path.name}/.lease", *(
            f"PUT /{tmp_path.name}/{table}/part-00000.parquet" for table in ("steps", "trials"))]


def test_requests_of_checkpoints(bucket: ObjectStore, tmp_path: Path) -> None:
    """A worker looks once; then a checkpoint is a PUT, and a pack that has none asks nothing."""
    folder, spec = Folder.open(bucket.uri(tmp_path.name)), some_specs(tmp_path)[0]
    folder.write("study.yaml", b"")
    bucket.counted()
    first = FolderCheckpoints(folder, "stamp", 0.0)
    assert bucket.counted() == {"LIST ": 2}
    assert first.load(spec) is None
    first.save(spec, CHECKPOINT)
    assert bucket.counted() == {f"PUT /{tmp_path.name}/.checkpoints/{spec.trial_id}": 1}
    FolderCheckpoints(first.kept, "stamp", 0.0)
    assert not bucket.counted()
    found = FolderCheckpoints(folder, "stamp", 0.0).load(spec)
    assert found is not None and found.taken == 7
    Leftovers(folder, [spec.trial_id])
    assert FolderCheckpoints(folder, "stamp", 0.0).load(spec) is None


def test_one_driver_at_a_time(bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.05)
    monkeypatch.setattr(lease, "WATCH", 0.6)
    monkeypatch.setattr(lease, "PAUSE", 0.05)
    folder = Folder.open(bucket.uri(tmp_path.name))
    with Lease(folder) as first:
        with pytest.raises(UserError, match=r"another driver \(host .*\) runs this study"), Lease(folder):
            pass
        first.check()
    old = {"owner": "x", "host": "far", "machine": "another", "pid": 1, "process_start": 1, "started": 0.0}
    folder.write(".lease", json.dumps({**old, "expires": time.time() + 50}).encode())
    with pytest.raises(UserError, match="host far"), Lease(folder):
        pass
    folder.write(".lease", json.dumps({**old, "expires": time.time() - 1}).encode())
    with Lease(folder) as successor:  # it watched, and nobody renewed
        successor.check()
        folder.write(".lease", json.dumps({**old, "expires": time.time() + 50}).encode())
        driving.wait(lambda: taken_over(successor), seconds=10)


def taken_over(held: Lease) -> bool:
    try:
        held.check()
    except UserError as error:
        return "another driver (host far" in str(error)
    return False


def test_what_is_wrong_is_one_line(bucket: ObjectStore, tmp_path: Path) -> None:
    folder = Folder.open(bucket.uri(tmp_path.name))
    with pytest.raises(UserError, match=r"^cannot write s3://no-such-bucket/x/a: .*make the bucket first"):
        Folder.open(bucket.uri("x", bucket="no-such-bucket")).write("a", b"")
    for says, fix in (("403 Access Denied", "may read, write"),
                      ("403 Invalid Access Key Id", "check AWS_ACCESS_KEY_ID"),
                      ("403 Signature Does Not Match", "check AWS_ACCESS_KEY_ID")):
        bucket.refuses = says
        try:
            with pytest.raises(UserError, match=fix) as caught:
                folder.write("a", b"")
        finally:
            bucket.refuses = ""
        assert not isinstance(caught.value, Unreachable) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^results s3://: names no bucket"):
        Folder.open("s3://")


def test_a_server_that_is_slow_or_busy_is_waited_for(bucket: ObjectStore, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    folder, told = Folder.open(bucket.uri(tmp_path.name)), list[str]()
    bucket.seconds = 3.5  # more than Arrow waits for by itself
    try:
        assert folder.list() == []
    finally:
        bucket.seconds = 0.0
    monkeypatch.setattr(folders, "PATIENCE", 5.0)
    bucket.refuses = "503 Slow Down"

    def free(line: str) -> None:
        told.append(line)
        bucket.refuses = ""

    patiently(lambda: folder.write("a", b"1"), free)
    assert folder.read("a") == b"1" and len(told) == 1 and "Trying again for 5 s" in told[0]
    monkeypatch.setattr(folders, "PATIENCE", 0.0)
    bucket.refuses = "503 Slow Down"
    try:
        with pytest.raises(Unreachable, match=r"^cannot write s3://.*SLOW_DOWN"):
            patiently(lambda: folder.write("a", b"1"), told.append)
    finally:
        bucket.refuses = ""


def test_a_secret_in_a_uri_is_not_shown(bucket: ObjectStore, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    uri = bucket.uri(tmp_path.name, user="a-key:hush%2Fhush@")
    folder = Folder.open(uri)
    folder.write("a", b"1")  # with these credentials
    assert folder.read("a") == b"1"
    write(tmp_path)
    for words in (["status", uri], ["plan", str(tmp_path / "far.yaml"), f"results={uri}"],
                  ["query", uri, "SELECT 1"], ["report", str(tmp_path / "far.yaml"), f"results={uri}"],
                  ["submit", str(tmp_path / "far.yaml"), f"results={uri}", "--to", "slurm", "--dry-run"]):
        main(words)
        said = "".join(capsys.readouterr())
        assert "hush" not in said and ("***@lab-bucket" in said), said
    for bad in ("s3://k:hush/x@b/c?no=1", "abfs://:hush@c/x?sig=hush&client_secret=hush&tenant_id=t"):
        assert "hush" not in storage.masked(bad)


def test_the_filesystems_of_other_stores() -> None:
    for uri, kind, path in (("gs://anonymous@b/x?endpoint_override=127.0.0.1:9", "gcs", "b/x"),
                            ("abfs://c@lab.dfs.core.windows.net/x/", "abfs", "c/x")):
        filesystem, found = storage.locate(uri)
        assert (filesystem.type_name, found) == (kind, path) and kind in storage.FLAT
        assert Folder.open(uri).display("trials/a").endswith("/x/trials/a")


def write(folder: Path) -> None:
    """The study and its model."""
    (folder / "far.yaml").write_text(STUDY)
    (folder / "slow.py").write_text(SLOW)


def some_specs(tmp_path: Path) -> list[TrialSpec]:
    """Two trials of the study."""
    write(tmp_path)
    study = load_study(str(tmp_path / "far.yaml"))
    return [spec for spec in itertools.islice(study.trials(lambda ids: []), 2) if spec is not None]


def some_trials(tmp_path: Path) -> tuple[dict[str, pa.Schema], Rows]:
    """Schemas of the study, and rows of two trials of it."""
    specs = some_specs(tmp_path)
    study = load_study(str(tmp_path / "far.yaml"))
    schemas = records.schemas(study.column_types, list(study.axis_columns))
    trials = [{**spec.flat(), "trial_id": spec.trial_id, "status": "completed"} for spec in specs]
    steps = [{"trial_id": spec.trial_id, "lr": spec.flat()["lr"], "seed": spec.seed, "step": 1} for spec in specs]
    return schemas, Rows.build(schemas, {"trials": trials, "steps": steps, "layers": [], "spectra": []})
