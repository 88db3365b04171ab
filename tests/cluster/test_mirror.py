"""Results that are brought here: only what is new, in an order that keeps them readable, from one folder only."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import ClusterError, mirror
from cluster.mirror import Request

TABLES = ("trials", "steps", "layers", "spectra")


def write_part(folder: Path, number: int, content: str) -> None:
    for table in TABLES:
        file = folder / table / f"part-{number:05d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{table} {content}")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A results folder of two parts, with what is not to travel."""
    folder = tmp_path / "there"
    write_part(folder, 0, "zero")
    write_part(folder, 1, "one")
    (folder / "study.yaml").write_text("study: x\n")
    for hidden in (".lease", ".checkpoints/0123", "trials/.part-00001.parquet.abc.tmp", ".damaged/part", "_logs/x"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_text("hidden")
    (folder / "link").symlink_to("study.yaml")
    return folder


def bring(there: Path, here: Path, most: int = mirror.MOST_BYTES) -> list[int]:
    """Bytes of each answer, until there is no more."""
    request: Request | None = Request(mirror.digests(here))
    counts = []
    while request is not None:
        count, request = mirror.receive(mirror.pack(there, request, most), request, here)
        counts.append(count)
    return counts


def seen(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*")
            if path.is_file() and path.name != ".mirror"}


def visible(folder: Path) -> dict[str, str]:
    return {name: text for name, text in seen(folder).items() if text != "hidden" and name not in ("link", ".origin")}


def test_only_what_is_new(there: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    count, = bring(there, here)
    assert seen(here) == visible(there) and len(seen(here)) == 9
    assert count == sum(map(len, seen(here).values()))
    assert bring(there, here) == [0]
    write_part(there, 1, "one and more")
    write_part(there, 2, "two")
    assert bring(there, here) == [sum(len(text) for name, text in visible(there).items() if "-00000" not in name
                                      and name != "study.yaml")]
    assert seen(here) == visible(there)
    (here / "trials" / "part-00000.parquet").unlink()
    assert bring(there, here) == [len("trials zero")]


def test_in_several_answers(there: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    write_part(there, 2, "two")
    counts = bring(there, here, most=1)
    assert len(counts) == 4 and all(counts) and seen(here) == visible(there)  # study.yaml, and each number's parts
    write_part(there, 0, "other")
    assert bring(there, here, most=1) == [sum(len(f"{table} other") for table in TABLES), 0]


def test_an_answer_whose_parts_are_more_than_the_most(there: Path, tmp_path: Path) -> None:
    request = Request({})
    data = mirror.pack(there, request, most=1)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [".index", "study.yaml"]
    _, request = mirror.receive(data, request, tmp_path / "here")
    with zipfile.ZipFile(io.BytesIO(mirror.pack(there, request, most=1))) as archive:
        assert set(archive.namelist()[1:]) == {f"{table}/part-00000.parquet" for table in TABLES}
        assert archive.namelist()[1].startswith("trials/")  # read first: it has no trial whose rows are not sent


def test_trials_come_last_and_merged_ones_go_first(there: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    bring(there, here)
    own = here / "report.html"
    own.write_text("mine")
    for table in TABLES:
        (there / table / "part-00001.parquet").unlink()
    write_part(there, 0, "zero and one")
    done = []
    replace, unlink = os.replace, Path.unlink
    monkeypatch.setattr(os, "replace", lambda source, to: (done.append(f"new {Path(to).parent.name}"),
                                                           replace(source, to)))
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (done.append(f"gone {path.parent.name}"),
                                                             unlink(path, **how)) if path.suffix != ".tmp" else None)
    bring(there, here)
    monkeypatch.undo()
    assert done[:2] == ["new here", "gone trials"] and done[-1] == "new trials" and len(done) == 9
    assert seen(here) == {**visible(there), "report.html": "mine"}


def test_what_is_not_from_there_is_not_touched(there: Path, tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    write_part(here, 0, "ran here")
    before = seen(here)
    with pytest.raises(ClusterError, match=r"here/\w+/part-00000.parquet did not come from there, and would be "
                                           "overwritten; bring the results into another results=PATH"):
        bring(there, here)
    assert seen(here) == before and not (here / ".mirror").exists()

    bring(there, other)
    write_part(other, 2, "a run here went on")
    with pytest.raises(ClusterError, match=r"part-00002.parquet did not come from there"):
        bring(there, other)
    for table in TABLES:
        (other / table / "part-00002.parquet").unlink()
    before = seen(other)
    (there / ".origin").unlink()  # lost with its disk, and begun anew by the next job
    with pytest.raises(ClusterError, match=r"the results there were begun anew, and .*other has those from before"):
        bring(there, other)
    with pytest.raises(ClusterError, match="begun anew"):
        bring(tmp_path / "gone", other)
    assert seen(other) == before


def test_cut_short_between_any_two_files(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one brings the rest, and takes what has come for its own."""
    here, replace = tmp_path / "here", os.replace
    bring(there, here)
    write_part(there, 1, "one and more")
    write_part(there, 2, "two")
    for left in range(10):
        allowed = iter(range(left))

        def limited(source: str, to: str, allowed: object = allowed) -> None:
            next(allowed)  # type: ignore[call-overload]
            replace(source, to)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", limited)
            try:
                bring(there, here)
            except StopIteration:
                trials = {path.name for path in (here / "trials").glob("part*")}
                assert trials <= {path.name for path in (here / "steps").glob("part*")}
            else:
                break
        assert not [path for path in here.rglob("*.tmp")]
    assert seen(here) == visible(there) and bring(there, here) == [0]


def test_nothing_there_yet(tmp_path: Path) -> None:
    assert bring(tmp_path / "there", tmp_path / "here") == [0]
    assert list(tmp_path.iterdir()) == []


def archive(members: dict[str, bytes], index: object = None, **how: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as archive:  # type: ignore[arg-type]
        archive.writestr(".index", json.dumps({"origin": "o", "names": list(members), "after": None}
                                              if index is None else index))
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", "/x", "a//x", "./x", ".bashrc", "a/.ssh", "_x", "..",
                                  "a\\x", "C:x", "a/\x1b[2J", "x/", ".mirror", "\n"])
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    here = tmp_path / "below" / "here"
    with pytest.raises(ClusterError, match="is not a results folder of phasesweep; nothing of it was written"):
        mirror.receive(archive({"study.yaml": b"", name: b"x"}), Request({}), here)
    assert list(tmp_path.iterdir()) == []


BOMB = archive({"study.yaml": b"0" * 10**6}, compression=zipfile.ZIP_DEFLATED)
GOOD = archive({"study.yaml": b"0" * 1000})


@pytest.mark.parametrize("data", [
    b"", b"no archive", BOMB, GOOD[:-30], GOOD.replace(b"0" * 1000, b"0" * 999 + b"1"),
    archive({}, []), archive({}, {"origin": "o"}), archive({}, {"origin": "o", "names": [1], "after": None}),
    archive({}, {"origin": "o", "names": [], "after": "soon"}),
])
def test_archives_that_are_none_of_ours(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="is not a results folder of phasesweep; nothing of it was written"):
        mirror.receive(data, Request({}), tmp_path / "here")
    assert list(tmp_path.iterdir()) == []


def test_a_link_out_of_the_folder(there: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (tmp_path / "elsewhere").mkdir()
    here.mkdir()
    (here / "steps").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClusterError, match=r"here/steps leads out of .*here; bring the results into another"):
        bring(there, here)
    assert list((tmp_path / "elsewhere").iterdir()) == [] and [path.name for path in here.iterdir()] == ["steps"]


def test_a_link_in_place_of_a_file(there: Path, tmp_path: Path) -> None:
    here, own = tmp_path / "here", tmp_path / "own"
    here.mkdir()
    own.write_text("mine")
    (here / "study.yaml").symlink_to(own)
    bring(there, here)
    assert own.read_text() == "mine" and not (here / "study.yaml").is_symlink()


def test_a_place_that_cannot_be_written(there: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterError, match=r"^cannot write \S+/file/here/\S+: Not a directory; free space there, or "
                                           "give another results=PATH$"):
        bring(there, tmp_path / "file" / "here")


def flip(text: str) -> str:
    return text.replace("A", "B", 1)


@pytest.mark.parametrize(("change", "expected"), [
    (flip, "arrived damaged"),
    (lambda text: text.replace(mirror.LINE, mirror.LINE + "*", 1), "arrived damaged"),
    (lambda text: text.replace(text.splitlines()[1] + "\n", ""), "arrived damaged"),
    (lambda text: mirror.ERROR + "[Errno 13] no\n", r"the results cannot be read there: \[Errno 13\] no"),
])
def test_damaged_lines(change: Callable[[str], str], expected: str) -> None:
    text = "\n".join(mirror.lines(os.urandom(200_000)))
    with pytest.raises(ClusterError, match=expected):
        mirror.joined(change(text))


@pytest.mark.parametrize("size", [0, 1, 48 * 1024, 200_001])
def test_lines_between_others(size: int) -> None:
    data = os.urandom(size)
    lines = ["INFO of Ray's", *mirror.lines(data), "more"]
    assert max(map(len, lines)) < 70_000
    for end in range(len(lines) - 2):
        assert mirror.joined("\n".join(lines[:end])) is None
    assert mirror.joined("\n".join(lines)) == data


def test_the_job_that_sends(there: Path, tmp_path: Path) -> None:
    """It runs from its few files alone, waits until it was read, and leaves nothing of what it printed."""
    request, log = Request({}), tmp_path / "log"
    for name, content in request.files.items():
        (tmp_path / "job" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "job" / name).write_bytes(content)
    with log.open("ab") as stream:
        process = subprocess.Popen([sys.executable, "-m", "cluster.mirror", "~/there"], cwd=tmp_path / "job",
                                   stdout=stream, stderr=stream, env={**os.environ, "HOME": str(tmp_path)})
    try:
        until = time.monotonic() + 60
        while (data := mirror.joined(log.read_text())) is None and time.monotonic() < until:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        assert data is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert log.read_bytes() == b""
    mirror.receive(data, request, tmp_path / "here")
    assert seen(tmp_path / "here") == visible(there)
