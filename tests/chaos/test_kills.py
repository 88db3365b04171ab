"""The driver is killed at random moments, again and again, with the same command; in the end nothing is missing,
nothing is there twice, and nothing is left running."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import driving
import processes
import pytest
from conftest import Same

KILLS, SEED = 200, 2024
SOONEST, LATEST = 0.3, 1.1  # seconds after the start of a driver, and times what a driver takes to its first commit
TRIALS = "trial.budget.steps=500", "space.seed.replicates=300"  # 600: about what so many drivers finish
ENOUGH = 1500.0  # seconds for a whole sweep on a machine that is busy
# A trial keeps a checkpoint so often that a kill may fall into the writing of one.
DRIVER = [sys.executable, "-c", "import sys; from orchestrator import checkpoints, cli; checkpoints.SECONDS = 0.3; "
                                "sys.exit(cli.main(sys.argv[1:]))"]


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_two_hundred_kills(study: Path, same: Same, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def start(results: Path) -> subprocess.Popen[str]:
        return driving.start("run", study, *TRIALS, f"results={results}", command=DRIVER)

    def done(driver: subprocess.Popen[str], results: Path) -> None:
        driving.ended(driver, 0, ENOUGH)
        same(results, whole, rounding=1e-12)
        assert not (results / ".damaged").exists()

    whole, folders = tmp_path / "whole", (tmp_path / f"results-{number}" for number in count())
    driving.ended(start(whole), 0, ENOUGH)

    # The first kill is right after a commit. How long that took is measured now that all is in the page cache: from a
    # cold disk a driver takes three times as long.
    results, began = next(folders), time.monotonic()
    driver = start(results)
    driving.wait(lambda: driving.committed(results) > 0, driver)
    latest = LATEST * (time.monotonic() - began)
    left, hits, chance = driving.kill(driver), Counter(after=1), random.Random(SEED)
    while hits.total() < KILLS:
        before = driving.committed(results)
        driver = start(results)
        time.sleep(chance.uniform(SOONEST, latest))
        if driver.poll() is not None:  # had nothing left to do: the next begins the sweep anew
            done(driver, results)
            results = next(folders)
            continue
        left = [one for one in [*left, *driving.kill(driver)] if one.alive]
        hits[_hit(results, before)] += 1
    done(start(results), results)
    with capsys.disabled():
        print(f"\nseed {SEED}; {hits.total()} kills, to {latest:.1f} s after a start: {dict(hits)} a commit")
    assert processes.left_after(90, left) == []
    assert hits["before"] >= 2 and hits["after"] >= 2


def _hit(results: Path, before: int) -> str:
    """Where a kill fell: before any commit of this driver, within one, or after one."""
    if any(path.name.endswith(".tmp") and ".checkpoints" not in path.parts for path in results.rglob("*")):
        return "within"
    return "after" if driving.committed(results) > before else "before"
