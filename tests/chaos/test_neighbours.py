"""Sweeps that share a machine with others do not see them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import driving
import pytest
from conftest import Same

# A Ray of somebody else's, with a token of its own, as a notebook may have it.
FOREIGN = "import ray, sys; ray.init(num_cpus=1, include_dashboard=False); print('up', flush=True); " \
          "sys.stdin.readline()"


@pytest.mark.chaos
def test_two_at_once_beside_a_foreign_ray(small: Path, small_undisturbed: Path, same: Same, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FOREIGN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as foreign:
        assert foreign.stdout is not None and foreign.stdout.readline() == "up\n"
        drivers = [driving.start("run", small, f"results={tmp_path / name}") for name in ("a", "b")]
        for driver in drivers:
            assert driving.ended(driver, 0)[1] == ""
        assert foreign.poll() is None
        foreign.communicate("\n")
    for name in ("a", "b"):
        same(tmp_path / name, small_undisturbed)


@pytest.mark.chaos
def test_one_that_is_stopped_keeps_its_folder_and_goes_on(study: Path, undisturbed: Path, same: Same,
                                                          tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = driving.start("run", study, f"results={results}", command=driving.OFTEN)
    driving.wait(lambda: driving.kept(results), first)
    first.send_signal(signal.SIGSTOP)
    try:
        said = driving.refused(driving.start("run", study, f"results={results}"))
    finally:
        first.send_signal(signal.SIGCONT)
    assert f"pid {first.pid}" in said and "runs this study; wait for it, or stop it" in said
    driving.ended(first, 0)
    same(results, undisturbed)
