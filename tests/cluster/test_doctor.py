"""What ``phasesweep doctor`` says about this machine, without writing anything."""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

import cluster
from orchestrator import nodes
from orchestrator.cli import main
from orchestrator.commands import doctor
from orchestrator.commands.doctor import Finding


class Usage(NamedTuple):
    total: int
    free: int


def test_this_machine(cli: Any, tmp_path: Path) -> None:
    done = cli("doctor", f"results={tmp_path / 'a' / 'b'}")
    assert done.stderr == ""
    findings = done.stdout.splitlines()
    assert all(line.startswith("ok  ") for line in findings)
    text = done.stdout
    assert f"{cluster.local_cpus()} cores" in text
    for what in ("phasesweep ", "ray 2", "torch 2", f"results go to {tmp_path}", "temporary files go to", "`submit`",
                 "GPU", "Ray starts in"):
        assert what in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["restuls=x", "results=", "results", "trial.lr=1"])
def test_a_word_it_does_not_know(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["doctor", word])
    assert left.value.code == 2
    assert re.fullmatch(rf"phasesweep: [^\n]*expected results=PATH, not '{word}'[^\n]*\n", capsys.readouterr().err)


def test_status_and_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a finding, whatever is in it; 2 as soon as one is not ok."""
    checks = {name: [] for name in ("_libraries", "_machine", "_gpu", "_temporary", "_token", "_ray")}
    checks["_ray"] = [Finding(True, "long " * 100)]
    for name, findings in checks.items():
        monkeypatch.setattr(doctor, name, lambda findings=findings: findings)
    for results, status in (([Finding(True, "a [bold]b")], 0), ([Finding(False, "c", "[d]"), Finding(True, "e")], 2)):
        monkeypatch.setattr(doctor, "_results", lambda path, results=results: results)
        out = io.StringIO()
        console = Console(file=out, soft_wrap=True, width=80)
        assert doctor.main(argparse.Namespace(results="results", to=None), console) == status
        expected = ["ok  a [bold]b"] if status == 0 else ["fix c: [d]", "ok  e"]
        assert out.getvalue().splitlines() == [*expected, "ok  " + "long " * 100]


def test_libraries_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "optuna":
            raise PackageNotFoundError(name)
        return {"torch": "2.5.1+cpu", "ray": "2.100.0"}.get(name, "9999.0")

    monkeypatch.setattr(nodes, "version", version)
    bad = [finding for finding in doctor._libraries() if not finding.ok]
    assert [finding.what for finding in bad] == ["optuna is not installed", "torch 2.5.1+cpu is too old"]
    assert [re.match(r"pip install (--upgrade )?'(torch|optuna)>=[\d.]+'", finding.fix) is not None
            for finding in bad] == [True, True]


def test_every_requirement_is_looked_at() -> None:
    wanted = [requirement for requirement in requires("phasesweep") or [] if "extra ==" not in requirement]
    *bad, last = list(doctor._libraries())[1:]
    assert bad == []
    assert len(last.what.split(", ")) == len(wanted) > 5


@pytest.mark.parametrize(("results", "expected"), [
    ("{tmp}/file/below", r"results cannot go to .*/file/below, as .*/file is not a folder you may write to"),
    ("nowhere://bucket/x", r"results nowhere://bucket/x: .*"),
])
def test_results_that_cannot_be_written(results: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding, = doctor._results(results.format(tmp=tmp_path))
    assert not finding.ok and re.fullmatch(expected, finding.what)


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: asked.append(path) or False)
    finding, = doctor._results(str(tmp_path / "a" / "b"))
    assert not finding.ok and asked == [tmp_path]


def test_storage_by_uri_is_only_read(tmp_path: Path) -> None:
    finding, = doctor._results(f"file://{tmp_path}/new")
    assert finding.ok and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "ok"), [(doctor.ENOUGH_DISK // 2, False), (doctor.ENOUGH_DISK * 5, True)])
def test_free_disk(free: int, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, free))
    for finding in (*doctor._results(str(tmp_path)), *doctor._temporary()):
        assert finding.ok is ok and (finding.fix == "") is ok
        assert f"{free / 2**30:.1f} GiB free" in finding.what


@pytest.mark.parametrize(("mebibytes", "small"), [(64, True), (24_000, False)])
def test_shared_memory(mebibytes: int, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(mebibytes << 20, 0))
    finding = list(doctor._machine())[-1]
    assert finding.ok and f"{mebibytes:,} MiB" in finding.what and ("--shm-size" in finding.what) is small


def test_a_token_is_only_needed_for_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(doctor._token()) == [Finding(True, "no token, which only `submit` needs")]
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert list(doctor._token()) == [Finding(True, "no token, which only `submit` needs")]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-secret")
    finding, = doctor._token()
    assert finding.ok and "RAY_AUTH_TOKEN" in finding.what and "a-secret" not in finding.what


def test_a_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def local() -> None:
        raise cluster.ClusterError("one line")

    monkeypatch.setattr(sys.modules["cluster"], "local", local)
    assert list(doctor._ray()) == [Finding(False, "one line")]
