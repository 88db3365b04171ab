"""Damaged and random files: never a crash, a hang, or other numbers than were written; a line, or the same data.

Examples: 60 damages of a part of a results folder, 400 of a part's checksums, 300 of a checkpoint, 400 of a study's
bytes and 300 of random ones.
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import NET, STUDIES, Damage, damages, results, steady

from orchestrator import parts
from search_spaces import load_study
from search_spaces.yaml_text import dump
from trials import checksums, generators, usercode
from trials.checkpoint import Checkpoint
from trials.errors import UserError
from trials.records import TABLES

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds for one answer, of a machine that may be busy
CHECKPOINT = Checkpoint(7, {"w": torch.ones(9, 9)}, {"mean": torch.ones(9)}, {"m": {"w": torch.zeros(9, 9)}}, {},
                        {"net.calls": 3}, generators.states(), "{}")


class Reader:
    """reader.py in a process of its own, which is started anew where it has crashed."""

    def __init__(self, sound: Path, harmed: Path) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("reader.py")), str(sound), str(harmed)]
        self._process: subprocess.Popen[str] | None = None

    def ask(self) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=subprocess.PIPE, text=True, cwd=ROOT,
                                             env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            pytest.fail(f"hung, or crashed: {self.close()}")
        return dict(json.loads(line))

    def close(self) -> str:
        if self._process is None:
            return ""
        self._process.kill()
        said = self._process.communicate()[1]
        self._process = None
        return said[-3000:]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of twelve trials in two parts."""
    root = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.store.PART_BYTES", 0)
        results(root, {**STUDIES[0], "analysis": []})
    return root / "results"


@pytest.fixture
def reader(sound: Path, tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(sound, tmp_path / "harmed")
    yield reader
    reader.close()


def test_a_harmed_part_is_refused_or_read_as_it_was_written_and_repaired(
        sound: Path, reader: Reader, tmp_path: Path) -> None:
    harmed, seen = tmp_path / "harmed", {"refused": 0, "unharmed": 0}

    @steady(60)
    @given(st.sampled_from(TABLES), st.sampled_from([0, 1]), damages())
    def check(table: str, number: int, damage: Damage) -> None:
        shutil.rmtree(harmed, ignore_errors=True)
        shutil.copytree(sound, harmed)
        part = harmed / parts.name(table, number)
        before = part.read_bytes()
        part.write_bytes(damage(before))
        answer = reader.ask()
        assert not answer["unrepaired"] and all("\n" not in line for line in answer["warnings"])
        if part.exists() and part.read_bytes() == before:
            assert not answer["warnings"] and not answer["refused"]
            seen["unharmed"] += 1
        else:
            assert answer["warnings"]
            seen["refused"] += bool(answer["refused"])

    check()
    assert seen["refused"] > 40 and seen["unharmed"] < 10


def test_checksums_notice_every_harm_to_what_they_cover(sound: Path) -> None:
    data = (sound / parts.name("layers", 0)).read_bytes()
    start = checksums.footer_start(data)
    assert checksums.file_intact(data) is True and checksums.footer_intact(data) is True
    assert checksums.footer_intact(data[start:]) is True and checksums.footer_start(data[start + 1:]) == -1

    @steady(400)
    @given(damages())
    def check(damage: Damage) -> None:
        harmed = damage(data)
        assert checksums.file_intact(harmed) is not True or harmed == data
        footer = damage(data[start:-8]) + data[-8:]
        assert checksums.footer_intact(footer) is not True or blanked(footer).endswith(blanked(data[start:]))

    def blanked(footer: bytes) -> bytes:
        at = footer.rindex(b"crc32:", footer.rindex(checksums.FILE.encode()))
        return footer[:at] + footer[at + 14:]

    check()


def test_a_file_of_before_there_were_all_checksums_is_still_read() -> None:
    table = pa.table({"trial_id": ["a", "b"], "x": [1.0, 2.0]})
    sink = pa.BufferOutputStream()
    with pa.parquet.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    assert checksums.file_intact(data) is None and checksums.footer_intact(data) is None


def test_a_harmed_checkpoint_is_none(tmp_path: Path) -> None:
    data = CHECKPOINT.to_bytes()
    assert Checkpoint.from_bytes(data) is not None

    @steady(300)
    @given(damages())
    def check(damage: Damage) -> None:
        harmed = damage(data)
        assert harmed == data or Checkpoint.from_bytes(harmed) is None

    check()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Loads a study from these bytes, or is refused in one line."""
    monkeypatch.setattr(usercode, "_folders", [])
    (tmp_path / "net.py").write_text(NET)
    file = tmp_path / "s.yaml"

    def loaded(data: bytes) -> None:
        file.write_bytes(data)
        try:
            load_study(str(file)).resolved()
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error).startswith(f"{file}: ")
    return loaded


def test_a_harmed_study_file_loads_or_is_refused_in_a_line(load: Callable[[bytes], None]) -> None:
    @steady(400)
    @given(st.sampled_from([dump(study).encode() for study in STUDIES]), damages(), damages())
    def check(text: bytes, first: Damage, second: Damage) -> None:
        harmed = first(text)
        load(second(harmed) if harmed else harmed)

    check()


def test_random_bytes_load_or_are_refused_in_a_line(load: Callable[[bytes], None]) -> None:
    study = dump(STUDIES[0]).encode()

    @steady(300)
    @given(st.binary(max_size=200)
           | st.text(alphabet="abc:-?[]{},&*!|>'\"%@`#\n \t\r\u0085\ufeff0~<=", max_size=80).map(str.encode))
    @example(b"\xef\xbb\xbf" + study)  # a byte order mark
    @example(study.replace(b"\n", b"\r\n"))
    @example(study.replace(b"  ", b"\t"))
    @example(study.decode().encode("utf-16"))
    @example(study.replace(b"Which", b"Wh\xed\xa0\x80ich"))  # half of a pair, which UTF-8 has not
    @example(study + b"\n---\n" + study)
    @example(study + b"\n...\n")
    @example(b"\0" * 4096)
    @example(b"%YAML 9.9\n---\n" + study)
    def check(data: bytes) -> None:
        load(data)

    check()


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf%s", b"%s\r\n"])
def test_what_editors_of_windows_write_is_read(text: bytes, load: Callable[[bytes], None], tmp_path: Path) -> None:
    study = dump(STUDIES[0]).encode()
    load(study)
    ids = [spec.trial_id for spec in load_study(str(tmp_path / "s.yaml")).trials(lambda ids: []) if spec]
    load(text.replace(b"%s", study.replace(b"\n", b"\r\n")))
    assert [spec.trial_id for spec in load_study(str(tmp_path / "s.yaml")).trials(lambda ids: []) if spec] == ids
