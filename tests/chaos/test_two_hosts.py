"""A study on a cluster of several hosts, while hosts die, vanish for a while, come late and come back.

Each host is a network namespace with a Ray of its own; the driver is on the first. The rows are those of an undisturbed
run on one machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import driving
import hosts
import pandas as pd
import pytest
from conftest import Same
from support import COMMAND

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900),
              pytest.mark.skipif(not hosts.possible(), reason="network namespaces take root and the `ip` command")]

TRIALS = 32
RAYLET, GCS = "raylet/raylet", "gcs/gcs_server"


@pytest.fixture
def network() -> Iterator[hosts.Network]:
    with hosts.network() as made:
        yield made


@pytest.fixture
def pair(network: hosts.Network) -> tuple[hosts.Host, hosts.Host]:
    """A cluster of two hosts, its head first."""
    first, second = network.host(), network.host()
    first.head()
    second.join(first)
    return first, second


def submit(head: hosts.Host, study: Path, results: Path) -> subprocess.Popen[str]:
    return head.start(*COMMAND, "submit", str(study), "--to", f"{head.address}:{hosts.PORT}", f"results={results}",
                      output=subprocess.PIPE)


def hosts_of(results: Path) -> set[str]:
    """Where trials were trained."""
    return set(pd.read_parquet(results / "trials", columns=["host"])["host"])


def working(host: hosts.Host) -> bool:
    """Whether a Ray worker trains there just now: it has the call in its title."""
    return bool(host.pids(".train"))


@pytest.mark.parametrize("shared", [True, False], ids=["shared disk", "nothing shared"])
def test_undisturbed(shared: bool, network: hosts.Network, study: Path, undisturbed: Path, same: Same,
                     tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    results = kept / "results"
    results.mkdir(parents=True)
    first, second = network.host(), network.host(hidden=None if shared else kept)
    seen = second.start(sys.executable, "-c", f"import os; print(os.path.isdir({str(results)!r}))",
                        output=subprocess.PIPE).communicate()[0]
    assert seen == f"{shared}\n"
    first.head()
    second.join(first)
    assert driving.ended(submit(first, study, results), 0)[1] == ""
    same(results, undisturbed)
    assert hosts_of(results) == {first.name, second.name}


def test_a_host_that_dies(pair: tuple[hosts.Host, hosts.Host], study: Path, undisturbed: Path, same: Same,
                          tmp_path: Path) -> None:
    (first, second), results = pair, tmp_path / "results"
    driver = submit(first, study, results)
    driving.wait(lambda: driving.committed(results) >= 3 and working(second), driver)
    second.kill(RAYLET)
    before = driving.committed(results)
    assert driving.ended(driver, 0)[1] == ""
    assert before < TRIALS
    same(results, undisturbed)


@pytest.mark.parametrize("given_up", [False, True], ids=["for a moment", "until it is given up"])
def test_a_cable_that_is_pulled(given_up: bool, pair: tuple[hosts.Host, hosts.Host], study: Path, undisturbed: Path,
                                same: Same, tmp_path: Path) -> None:
    (first, second), results = pair, tmp_path / "results"
    driver = submit(first, study, results)
    driving.wait(lambda: driving.committed(results) >= 3 and working(second), driver)
    second.plug(False)
    try:
        if given_up:
            driving.wait(lambda: first.lost(second), driver)
        else:
            time.sleep(5.0)
    finally:
        second.plug(True)
    assert driving.ended(driver, 0)[1] == ""
    same(results, undisturbed)


def test_a_host_that_comes_late_gets_work(pair: tuple[hosts.Host, hosts.Host], network: hosts.Network, study: Path,
                                          undisturbed: Path, same: Same, tmp_path: Path) -> None:
    (first, second), results = pair, tmp_path / "results"
    driver = submit(first, study, results)
    driving.wait(lambda: driving.committed(results) >= 1, driver)
    third = network.host()
    third.join(first)
    driving.ended(driver, 0)
    same(results, undisturbed)
    assert hosts_of(results) == {first.name, second.name, third.name}


def test_a_head_that_dies_ends_the_driver_and_a_new_one_goes_on(
        pair: tuple[hosts.Host, hosts.Host], study: Path, undisturbed: Path, same: Same, tmp_path: Path) -> None:
    (first, second), results = pair, tmp_path / "results"
    driver = submit(first, study, results)
    driving.wait(lambda: driving.committed(results) >= 4, driver)
    first.kill(GCS, RAYLET)
    driving.refused(driver, seconds=90)
    before = pd.read_parquet(results / "trials").set_index("trial_id")["finished_at"]
    assert 4 <= len(before) < TRIALS
    first.kill()
    second.kill()
    first.head()
    second.join(first)
    driving.ended(submit(first, study, results), 0)
    same(results, undisturbed)
    after = pd.read_parquet(results / "trials").set_index("trial_id")["finished_at"]
    pd.testing.assert_series_equal(after[before.index], before)  # what was committed has not run again
