"""A clock that is set back or forward, for the driver and its workers, in the middle of a run and between two."""

from __future__ import annotations

import os
from pathlib import Path

import driving
import pytest
from conftest import Same

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

DAY = 86400.0
# Imported by every Python process that starts with its folder on the path, before anything else.
SITE = """
import os, time
true = time.time
def shifted():
    try:
        with open(os.environ["CLOCK"]) as file:
            return true() + float(file.read())
    except OSError:
        return true()
time.time = shifted
"""


@pytest.mark.parametrize("shift", [-DAY, DAY], ids=["back", "forward"])
def test_a_clock_that_is_set(shift: float, study: Path, undisturbed: Path, same: Same, tmp_path: Path) -> None:
    results, clock = tmp_path / "results", tmp_path / "clock"
    (tmp_path / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = {"CLOCK": str(clock), "PYTHONPATH": path}

    def set_to(offset: float) -> None:
        (tmp_path / "new").write_text(str(offset))
        os.replace(tmp_path / "new", clock)

    driver = driving.start("run", study, f"results={results}", environment=environment)
    driving.wait(lambda: driving.committed(results) >= 2, driver)
    set_to(shift)
    then = driving.committed(results)
    second = driving.start("run", study, f"results={results}", environment=environment)
    assert f"pid {driver.pid}" in driving.refused(second)
    driving.wait(lambda: driving.committed(results) > then, driver)  # the first one is not disturbed
    driving.kill(driver)
    set_to(-shift)
    driving.ended(driving.start("run", study, f"results={results}", environment=environment), 0)
    same(results, undisturbed)
