"""Harm done to the results by disks and power cuts, through the command line: what was committed stays, and the same
command makes the rest whole."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import driving
import pandas as pd
import pytest
from conftest import Same
from support import Cli, mounted

from trials.records import TABLES

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

# Dies at the n-th replacement of a part: before it, when the new content is in a temporary file, or after it.
CUT = """
import os, signal, sys
from orchestrator import cli
number, when = int(sys.argv[1]), sys.argv[2]
replace = os.replace
def counted(source, target):
    global number
    number -= str(target).endswith(".parquet")
    if number == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted
sys.exit(cli.main(sys.argv[3:]))
"""
# Begins a new part early, so that there are several.
MANY_PARTS = """
import sys
from orchestrator import cli, store
store.PART_BYTES = 1000
store_commit = store.Store.commit
def one_by_one(self, rows):
    from trials.records import Rows
    for trial in rows.ids:
        store_commit(self, Rows({name: table.filter([i == trial for i in table["trial_id"].to_pylist()])
                                 for name, table in rows.tables.items()}))
store.Store.commit = one_by_one
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    with mounted(tmp_path / "disk", "size=64m") as path:
        yield path


def remount(disk: Path, options: str) -> bool:
    """Whether it could be done; a disk with a file open for writing does not become read-only."""
    return subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], capture_output=True).returncode == 0


def kept(results: Path) -> pd.Series:
    """When each trial that is committed was finished."""
    return pd.read_parquet(results / "trials").set_index("trial_id")["finished_at"]


def go_on(results: Path, study: Path, undisturbed: Path, cli: Cli, same: Same) -> None:
    """The same command again: it runs what is missing and nothing else."""
    before = kept(results)
    cli("run", study, f"results={results}", timeout=driving.PATIENCE)
    same(results, undisturbed)
    pd.testing.assert_series_equal(kept(results)[before.index], before)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_disk_that_fails_while_trials_run(fault: str, disk: Path, study: Path, undisturbed: Path, cli: Cli,
                                            same: Same) -> None:
    results, ballast = disk / "results", disk / "ballast"
    driver = driving.start("run", study, f"results={results}")
    driving.wait(lambda: driving.committed(results) >= 3, driver)
    if fault == "full":
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
    else:
        driving.wait(lambda: remount(disk, "ro"), driver)
    line = driving.refused(driver)
    assert str(results) in line and {"full": "the disk is full", "read-only": "Read-only file system"}[fault] in line
    assert 3 <= len(kept(results)) < 24
    again = driving.refused(driving.start("run", study, f"results={results}"))
    assert str(results) in again
    ballast.unlink(missing_ok=True) if fault == "full" else remount(disk, "rw")
    go_on(results, study, undisturbed, cli, same)


def test_power_cut_at_each_write_of_a_commit(small: Path, small_undisturbed: Path, cli: Cli, same: Same,
                                             tmp_path: Path) -> None:
    results = tmp_path / "results"

    def cut(number: int, when: str) -> int:
        driver = driving.start(number, when, "run", small, f"results={results}", command=[sys.executable, "-c", CUT])
        driving.ended(driver, -signal.SIGKILL)
        return driving.committed(results)
    for number in range(1, 5):  # the empty tables that a study begins with
        assert cut(number, "after") == 0
    for number in range(1, 5):
        assert cut(number, "before") == 0
        done = cut(number, "after")
        assert (done > 0) == (number == len(TABLES))  # trials are there with the last of their four writes
    assert done < 24
    go_on(results, small, small_undisturbed, cli, same)


def test_parts_cut_short_and_flipped_bits(small: Path, small_undisturbed: Path, same: Same, tmp_path: Path) -> None:
    sound, chance = tmp_path / "sound", random.Random(11)
    driving.ended(driving.start("run", small, f"results={sound}", command=[sys.executable, "-c", MANY_PARTS]), 0)
    numbers = sorted(path.name for path in (sound / "trials").iterdir())
    assert len(numbers) > 5
    for turn in range(3):
        results = tmp_path / f"results-{turn}"
        shutil.copytree(sound, results)
        harmed = []
        for number in numbers:
            file = results / chance.choice(TABLES) / number
            data = file.read_bytes()
            at, cut = chance.randrange(len(data)), chance.random() < 0.3
            file.write_bytes(data[:at] if cut else data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)])
                             + data[at + 1:])
            harmed.append(file)
        out, _ = driving.ended(driving.start("run", small, f"results={results}"), 0)
        said = [line for line in out.splitlines() if "set aside" in line]
        assert len(said) == len(harmed) and all(str(file) in line for file, line in zip(harmed, said, strict=True))
        assert all(re.search(r"set aside in \S+/\.damaged, (its|\d+) trials run again$", line) for line in said)
        assert len(list((results / ".damaged").iterdir())) == 4 * len(harmed)
        same(results, small_undisturbed)
