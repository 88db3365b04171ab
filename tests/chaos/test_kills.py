"""The driver is killed at random moments, again and again, with the same command; in the end nothing is missing,
nothing is there twice, and nothing is left running."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path

import driving
import processes
import pytest
from conftest import Same

KILLS, SECONDS, SEED = 200, 1500.0, 2024
SOONEST, LATEST = 0.3, 1.1  # seconds after the start of a driver, and times what a driver takes to its first commit
TRIALS = "trial.budget.steps=500", "space.seed.replicates=300"  # 600: more than so many drivers finish
ENOUGH = 1500.0  # seconds for all of them on a machine that is busy
# A trial keeps a checkpoint so often that a kill may fall into the writing of one.
DRIVER = [sys.executable, "-c", "import sys; from orchestrator import checkpoints, cli; checkpoints.SECONDS = 0.3; "
                                "sys.exit(cli.main(sys.argv[1:]))"]


@pytest.mark.chaos
@pytest.mark.timeout(2 * ENOUGH + SECONDS)
def test_two_hundred_kills(study: Path, same: Same, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, whole, chance = tmp_path / "results", tmp_path / "whole", random.Random(SEED)
    began = time.monotonic()
    driver = driving.start("run", study, *TRIALS, f"results={whole}")
    driving.wait(lambda: driving.committed(whole) > 0, driver)
    latest = LATEST * (time.monotonic() - began)
    driving.ended(driver, 0, ENOUGH)

    hits: Counter[str] = Counter()
    moments: list[float] = []
    left: list[processes.Process] = []
    until = time.monotonic() + SECONDS
    while len(moments) < KILLS and time.monotonic() < until:
        before = driving.committed(results)
        driver = driving.start("run", study, *TRIALS, f"results={results}", command=DRIVER)
        moments.append(round(chance.uniform(SOONEST, latest), 2))
        time.sleep(moments[-1])
        if driver.poll() is not None:
            driving.ended(driver, 0)
            break
        left = [one for one in [*left, *driving.kill(driver)] if one.alive]
        hits[_hit(results, before)] += 1
    with capsys.disabled():
        print(f"\nseed {SEED}; {sum(hits.values())} kills, to {latest:.1f} s after a start: {dict(hits)} a commit")
    driving.ended(driving.start("run", study, *TRIALS, f"results={results}", command=DRIVER), 0, ENOUGH)
    same(results, whole, rounding=1e-12)
    assert not (results / ".damaged").exists()
    assert processes.left_after(90, left) == []
    assert hits["before"] >= 2 and hits["after"] >= 2


def _hit(results: Path, before: int) -> str:
    """Where a kill fell: before any commit of this driver, within one, or after one."""
    if any(path.name.endswith(".tmp") and ".checkpoints" not in path.parts for path in results.rglob("*")):
        return "within"
    return "after" if driving.committed(results) > before else "before"
