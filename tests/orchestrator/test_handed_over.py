"""submit, status, cancel and fetch of a sweep that runs elsewhere. "Elsewhere" is a process of its own here: what a
target does with a job is tested with the targets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cluster
from cluster import Job, Place, State, Target
from orchestrator import cli, receipt
from trials.errors import UserError

STUDY = """
study: tiny
question: Does a sweep that is handed over come back?
trial:
  task: {name: gaussian_regression, dim: 4, samples: 16}
  model: {name: mlp, depth: 0}
  optimizer: {name: sgd, lr: 0.01}
  budget: {steps: 2}
  batch_size: 4
space:
  lr: [0.01, 0.02]
"""


@dataclass(frozen=True)
class Elsewhere:
    """A folder of its own: bundles are unpacked in it and run there, with a local Ray."""

    root: Path

    def place(self, name: str, results: str) -> Place:
        return Place(str(self.root / "results" / name), "on its disk", fetched=True)

    def look(self) -> str:
        return "it answers"

    def text(self, job: Job) -> str:
        return " ".join(job.arguments)

    def submit(self, job: Job) -> str:
        number = f"job{len(list(self.root.glob('job*')))}"
        job.bundle.unpack(self.root / number)
        (self.root / number / "arguments").write_text("\n".join(job.arguments))
        return number

    def state(self, number: str) -> State:
        return State[(self.root / number / "state").read_text()] if (self.root / number / "state").exists() \
            else State.RUNNING

    def why(self, number: str) -> str:
        return "the disk there is full" if self.state(number) is State.FAILED else ""

    def follow(self, number: str) -> Iterator[str]:
        folder = self.root / number
        results = next(word for word in (folder / "arguments").read_text().split() if word.startswith("results="))
        done = subprocess.run([sys.executable, "-m", "orchestrator.cli", "run", "study.yaml", results], cwd=folder,
                              capture_output=True, text=True, timeout=240)
        (folder / "state").write_text("FAILED" if done.returncode else "DONE")
        yield from done.stdout.splitlines()

    def cancel(self, number: str) -> None:
        (self.root / number / "state").write_text("STOPPED")

    def fetch(self, number: str, results: str, into: Path) -> int:
        came = 0
        for file in Path(results).rglob("*.parquet"):
            there = into / file.relative_to(results)
            there.parent.mkdir(parents=True, exist_ok=True)
            came += there.write_bytes(file.read_bytes())
        return came


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """``--to elsewhere``; receipts, studies and results lie in ``tmp_path``, which is the working directory."""
    there = Elsewhere(tmp_path / "elsewhere")
    there.root.mkdir()
    real = cluster.target

    def chosen(to: str, options: Any = ()) -> Target | None:
        return there if to == "elsewhere" else real(to, options)

    for place in (cluster, receipt):
        monkeypatch.setattr(place, "target", chosen)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    return there


def phasesweep(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main(list(words))
    said = capsys.readouterr()
    return status, said.out + said.err


def test_it_is_followed_and_fetched(elsewhere: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = phasesweep(capsys, "submit", "tiny.yaml", "--to", "elsewhere", "space.seed.replicates=2")
    assert status == 0, said
    assert f"tiny is job0 on elsewhere; results go to {tmp_path}/elsewhere/results/tiny, on its disk" in said
    assert "tiny: 4 completed" in said and said.endswith("job0: done\n")
    assert len(pd.read_parquet(tmp_path / "results" / "tiny" / "trials")) == 4
    status, said = phasesweep(capsys, "status", "tiny.yaml", "space.seed.replicates=2")
    assert status == 0 and "job        job0 on elsewhere: done" in said and "0 of 4" in said
    status, said = phasesweep(capsys, "fetch", "tiny.yaml")
    assert status == 0 and "came from" in said


def test_one_that_is_at_work_is_not_begun_twice(elsewhere: Target, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert phasesweep(capsys, "submit", "tiny.yaml", "--to", "elsewhere", "--detach")[0] == 0
    status, said = phasesweep(capsys, "submit", "tiny.yaml", "--to", "elsewhere", "--detach")
    assert status == 0 and "tiny is at work already, as job0 on elsewhere" in said
    status, said = phasesweep(capsys, "cancel", "tiny.yaml")
    assert status == 0 and "job0 on elsewhere: stopped" in said
    status, said = phasesweep(capsys, "submit", "tiny.yaml", "--to", "elsewhere", "--detach")
    assert status == 0 and "tiny is job1" in said
    assert not (tmp_path / "results").exists()


def test_one_that_failed_there_is_status_1_here(elsewhere: Target, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere" / "results").touch()  # so that there is no folder for its results
    status, said = phasesweep(capsys, "submit", "tiny.yaml", "--to", "elsewhere")
    assert status == 1 and said.endswith("job0: failed, the disk there is full\n")
    assert "job0 on elsewhere: failed" in phasesweep(capsys, "status", "tiny.yaml")[1]


def test_dry_run_sends_and_writes_nothing(elsewhere: Target, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, said = phasesweep(capsys, "submit", "tiny.yaml", "--to", "elsewhere", "--dry-run")
    assert status == 0 and said == f"submit study.yaml --to auto results={tmp_path}/elsewhere/results/tiny"
    status, said = phasesweep(capsys, "submit", "tiny.yaml", "--to", "10.0.0.1:6379", "--dry-run")
    assert status == 0 and said.startswith("this process would join 10.0.0.1:6379 and send it")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", ["cancel", "fetch"])
def test_what_was_not_handed_over_cannot_be(verb: str, elsewhere: Target, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = phasesweep(capsys, verb, "tiny.yaml")
    assert status == 2 and said.startswith("phasesweep: results/tiny: no sweep was handed over from this machine")
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"to": 1}', b'\xff\xfe',
                                     b'{"to": 1, "options": [], "number": "x", "results": "y", "fetched": true}'])
def test_a_damaged_receipt_is_named(content: bytes, elsewhere: Target, tmp_path: Path) -> None:
    receipt.Receipt("elsewhere", [], "job0", "/x", True).save("results/tiny")
    [file] = (tmp_path / "state").rglob("*.json")
    assert receipt.needed("results/tiny").number == "job0"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file} is damaged; delete it") as caught:
        receipt.load("results/tiny")
    assert "\n" not in str(caught.value)


def test_receipts_are_told_apart_by_where_results_go(elsewhere: Target, monkeypatch: pytest.MonkeyPatch,
                                                     tmp_path: Path) -> None:
    receipt.Receipt("elsewhere", [], "job0", "/x", True).save("results/tiny")
    receipt.Receipt("elsewhere", [], "job1", "s3://b/tiny", False).save("s3://b/tiny")
    assert receipt.needed(str(tmp_path / "results" / "tiny")).number == "job0"
    assert receipt.needed("s3://b/tiny").number == "job1"
    assert receipt.load("results/other") is None
