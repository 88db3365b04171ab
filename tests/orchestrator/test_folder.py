"""Durable writes, on a local disk and elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from pyarrow import fs as pafs
from support import in_memory

from orchestrator.folder import Folder
from trials.errors import UserError


@pytest.fixture(params=["local", "memory", "subtree", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        return Folder.open(request.getfixturevalue("bucket").uri(tmp_path.name))
    if request.param == "local":
        return Folder.open(tmp_path / "results" / "study")
    if request.param == "memory":
        return in_memory(tmp_path.name)
    return Folder.open("study", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()))


def test_one_contract_on_every_filesystem(folder: Folder) -> None:
    assert folder.list() == folder.list("layers") == []
    with pytest.raises(FileNotFoundError):
        folder.read("a")
    folder.write("a", b"one")
    folder.write("a", b"two")
    folder.write("layers/b", b"")
    folder.write("layers/.hidden", b"x")
    assert folder.read("a") == b"two" and folder.read("layers/b") == b""
    assert folder.list() == ["a"] and folder.list("layers") == [".hidden", "b"]
    folder.move("a", ".aside/c")
    assert folder.list() == [] and folder.read(".aside/c") == b"two"
    with pytest.raises(FileNotFoundError):
        folder.move("a", "b")
    folder.delete("layers/b")
    folder.delete("layers/b")
    assert folder.list("layers") == [".hidden"]
    assert folder.create_exclusive("lease", b"mine")
    assert not folder.create_exclusive("lease", b"yours")
    assert folder.read("lease") == b"mine"


def test_paths_and_uris_name_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Folder.open("out").write("a", b"1")
    assert Folder.open(tmp_path / "out").read("a") == Folder.open(f"file://{tmp_path}/out/").read("a") == b"1"
    assert Folder.open("out").display("layers/x") == "out/layers/x"
    with pytest.raises(UserError, match=r"^results nosuch://x: .*expected a path, or a URI"):
        Folder.open("nosuch://x")


@pytest.mark.parametrize(("number", "says"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "over quota"),
                                              (errno.EROFS, "make it writable"), (errno.EIO, "check the path")])
def test_a_failed_write_leaves_the_old_content_and_nothing_else(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str) -> None:
    folder = Folder.open(tmp_path)
    folder.write("a", b"old")

    def fails(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(UserError, match=says) as caught:
            folder.write("a", b"new")
        with pytest.raises(UserError, match=says):
            folder.create_exclusive("b", b"new")
    assert str(caught.value).startswith(f"cannot write {tmp_path}/a: ") and "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["a"] and folder.read("a") == b"old"


def test_a_write_is_on_disk_before_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace = os.replace

    def syncs(descriptor: int) -> None:
        done.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")

    def replaces(source: str, target: str) -> None:
        assert os.path.getsize(source) == 3
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(os, "replace", replaces)
    Folder.open(tmp_path).write("new/a", b"abc")
    assert done == ["sync directory", "sync file", "rename", "sync directory"]


def test_a_really_full_disk() -> None:
    with pytest.raises(UserError, match=r"cannot write /dev/full: the disk is full"):
        Folder(_OntoFull(), "/dev").write("full", b"x")


class _OntoFull(pafs.SubTreeFileSystem):  # not local, so that the file is written in place
    def __init__(self) -> None:
        super().__init__("/", pafs.LocalFileSystem())


def test_a_path_below_a_file_or_a_dangling_link_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for where in (tmp_path / "file" / "study", tmp_path / "link"):
        with pytest.raises(UserError, match="cannot write"):
            Folder.open(where).write("a", b"x")
    with pytest.raises(UserError, match="cannot list"):
        Folder.open(tmp_path / "file").list()


def test_sweep_takes_leftovers_of_other_processes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.open(tmp_path)
    folder.write("steps/kept", b"x")
    left: list[str] = []

    def killed(source: str, target: str) -> None:
        left.append(source)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # killed before the rename, with no chance to clean up
        patch.setattr(os, "replace", killed)
        patch.setattr(os, "unlink", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            folder.write("steps/a", b"x")
    folder.sweep("", "steps")
    assert folder.list("steps") == [os.path.basename(left[0]), "kept"]  # may still be being written
    monkeypatch.setattr("orchestrator.folder._PROCESS", "another")
    folder.sweep("", "steps")
    assert folder.list("steps") == ["kept"]
