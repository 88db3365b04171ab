"""The driver is killed at random moments, again and again, with the same command; in the end nothing is missing,
nothing is there twice, and nothing is left running."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from itertools import count
from pathlib import Path

import driving
import processes
import pytest
from conftest import Same

KILLS, SEED = 200, 2024
SOONEST, LATEST = 0.3, 20.0  # seconds after the start of a driver
LATER, EARLIER = 1.02, 0.94  # so that of four kills one is after a commit, whatever a start takes on this machine
TRIALS = "trial.budget.steps=500", "space.seed.replicates=300"  # 600: about what so many drivers finish
ENOUGH = 1500.0  # seconds for a whole sweep on a machine that is busy


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_two_hundred_kills(study: Path, same: Same, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def start(results: Path) -> subprocess.Popen[str]:
        return driving.start("run", study, *TRIALS, f"results={results}", command=driving.OFTEN)

    def done(driver: subprocess.Popen[str], results: Path) -> None:
        driving.ended(driver, 0, ENOUGH)
        same(results, whole, rounding=1e-12)
        assert not (results / ".damaged").exists()

    whole, folders = tmp_path / "whole", (tmp_path / f"results-{number}" for number in count())
    driving.ended(start(whole), 0, ENOUGH)

    results, latest = next(folders), LATEST
    left: list[processes.Process] = []
    hits, chance = Counter[str](), random.Random(SEED)
    while hits.total() < KILLS:
        before = driving.committed(results), _unfinished(results)
        driver = start(results)
        time.sleep(chance.uniform(SOONEST, latest))
        if driver.poll() is not None:  # had nothing left to do: the next begins the sweep anew
            done(driver, results)
            results = next(folders)
            continue
        left = [one for one in [*left, *driving.kill(driver)] if one.alive]
        hit = _hit(results, *before)
        hits[hit] += 1
        latest *= LATER if hit == "before" else EARLIER
    done(start(results), results)
    with capsys.disabled():
        print(f"\nseed {SEED}; {hits.total()} kills, at last within {latest:.1f} s of a start: {dict(hits)} a commit")
    assert processes.left_after(90, left) == []
    assert hits["before"] >= 20 and hits["after"] >= 20


def _hit(results: Path, committed: int, unfinished: set[Path]) -> str:
    """Where a kill fell: before any commit of this driver, within one, or after one."""
    if _unfinished(results) - unfinished:
        return "within"
    return "after" if driving.committed(results) > committed else "before"


def _unfinished(results: Path) -> set[Path]:
    """Files of tables that were being written when a driver was killed."""
    return {path for path in results.rglob("*.tmp") if ".checkpoints" not in path.parts}
