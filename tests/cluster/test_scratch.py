"""Temporary folders: private, gone with their process or with the next, and refused in one line where there is no room
for them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import mounted

import cluster
from cluster.local import LONGEST
from cluster.scratch import base, scratch

HOLD = "import sys, pathlib; from cluster.scratch import scratch\n" \
       "with scratch(pathlib.Path(sys.argv[1])) as folder: print(folder, flush=True); sys.stdin.readline()"


def hold(where: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder there."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(where)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_one_is_private_and_removed_also_after_an_error(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with pytest.raises(ZeroDivisionError), scratch(tmp_path) as folder:
            assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
            (folder / "deep").mkdir()
            (folder / "deep" / "file").touch()
            raise ZeroDivisionError
    finally:
        os.umask(before)
    assert not list(tmp_path.iterdir())


def test_one_that_a_killed_process_left_is_removed_by_the_next_and_no_other(tmp_path: Path) -> None:
    dead, left = hold(tmp_path)
    alive, used = hold(tmp_path)
    theirs = tmp_path / "phasesweep-notes"  # a folder of the user's own, without our lock
    theirs.mkdir()
    with dead, alive:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert left.is_dir()
        with scratch(tmp_path) as folder:
            assert {*tmp_path.iterdir()} == {folder, used, theirs}
        alive.communicate("\n")
    assert [*tmp_path.iterdir()] == [theirs]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize(("where", "said"), [("missing", "which is no folder"), ("file", "which is no folder")])
def test_a_place_that_is_none_is_named_with_the_variable(
        name: str, where: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, str(tmp_path / where))
    with pytest.raises(cluster.ClusterError) as caught:
        base()
    assert str(caught.value) == (f"temporary files cannot go to {tmp_path / where}, {said}; set {name} to a folder "
                                 "with room on a local disk")


@pytest.mark.parametrize(("options", "said"), [
    ("size=4m", r"4 MiB are free, and it takes 64"), ("size=200m,nr_inodes=20", "inodes are used up"),
    ("size=200m,ro", "Read-only file system")])
def test_a_small_full_or_read_only_disk_is_refused(
        options: str, said: str, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with mounted(short / "disk", options) as disk:
        monkeypatch.setenv("TMPDIR", str(disk))
        with pytest.raises(cluster.ClusterError) as caught:
            cluster.local()  # before anything is started
    assert re.search(rf"^temporary files cannot go to {disk}: .*{said}.*; set TMPDIR to ", str(caught.value))


def test_a_name_too_long_for_sockets_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    assert (base(), base(LONGEST)) == (long, Path("/tmp"))
