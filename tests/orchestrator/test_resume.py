"""Resume, extend and dedupe through the real command line: kill it, widen it, run it again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import driving
import pandas as pd
import pytest
from support import Cli, Tables

STUDY = """
study: resume
question: Is every trial there exactly once?
trial:
  task: digits
  model: {name: mlp, width: 24, depth: 1}
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
  knobs: {dropout: {p: 0.1}}
  budget: {epochs: 3}
  precision: float64
space:
  batch_size: [4, 8, 16]
  lr: [0.01, 0.02, 1.0e+4]  # a larger one would not blow up, but make 1 of a last digit
  seed: {replicates: 2}
measure: {weights: log, eigenvalues: ends}
"""
TRIALS = 18
ROUNDING = 1e-6  # by which a trial's numbers, in float64, may depend on its pack
TINY = 1e-12  # an eigenvalue that is 0 is so to rounding


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "resume.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def undisturbed(study: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of the study, run without interruption."""
    results = tmp_path_factory.mktemp("undisturbed") / "results"
    cli("run", study, f"results={results}")
    return results


def kill_after(study: Path, results: Path, number: signal.Signals, delay: float, *overrides: str) -> int:
    """Start a run, send the signal ``delay`` seconds after its first new commit, and return its exit status."""
    before = driving.committed(results)
    driver = driving.start("run", study, f"results={results}", *overrides)
    driving.wait(lambda: driving.committed(results) > before or driver.poll() is not None, seconds=120)
    time.sleep(delay)
    driver.send_signal(number)
    driver.communicate(timeout=60)
    return driver.returncode


def test_killed_three_times_then_run_again_equals_an_undisturbed_run(
        study: Path, undisturbed: Path, cli: Cli, stored: Tables, tmp_path: Path) -> None:
    results, chance = tmp_path / "results", random.Random(0)
    statuses = [kill_after(study, results, signal.SIGKILL, chance.uniform(0.0, 0.8)) for _ in range(3)]
    assert -signal.SIGKILL in statuses  # at least one was cut short; a late one may already have been done
    cli("run", study, f"results={results}")
    expected, found = stored(undisturbed), stored(results)
    assert len(found["trials"]) == TRIALS
    assert set(found["trials"]["status"]) == {"completed", "diverged"}
    for table in expected:
        pd.testing.assert_frame_equal(found[table], expected[table], rtol=ROUNDING, atol=TINY)


def test_run_again_starts_no_ray_and_is_quick(study: Path, undisturbed: Path) -> None:
    before = (undisturbed / "trials" / "part-00000.parquet").stat().st_mtime_ns
    # Without permission to start Ray at all, a finished study still answers.
    code = ("import sys, time; began = time.perf_counter(); from orchestrator.cli import main; "
            f"status = main(['run', {str(study)!r}, {f'results={undisturbed}'!r}]); "
            "assert 'ray' not in sys.modules; print('SECONDS', time.perf_counter() - began); sys.exit(status)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "resume: 12 completed, 6 diverged" in done.stdout
    assert (undisturbed / "trials" / "part-00000.parquet").stat().st_mtime_ns == before


def test_widened_axis_and_new_replicate_run_only_what_is_new(
        study: Path, undisturbed: Path, cli: Cli, stored: Tables, tmp_path: Path) -> None:
    results = tmp_path / "results"
    subprocess.run(["cp", "-r", str(undisturbed), str(results)], check=True)
    times = pd.read_parquet(results / "trials").set_index("trial_id")["finished_at"]
    wider = ["space.lr.values=[0.01,0.015,0.02,1.0e+4]", "space.seed.replicates=3", f"results={results}"]
    planned = cli("plan", study, *wider).stdout
    assert "36" in planned
    done = cli("run", study, *wider)
    assert "18 of 36 trials to run" in done.stdout
    after = pd.read_parquet(results / "trials").set_index("trial_id")["finished_at"]
    assert len(after) == 36
    pd.testing.assert_series_equal(after[times.index], times)  # what was there has not run again
    old, new = stored(undisturbed), stored(results)
    for table, frame in old.items():
        kept = new[table][new[table]["trial_id"].isin(times.index)].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, frame, check_exact=True)


def test_a_new_axis_becomes_a_column_of_every_table(
        study: Path, undisturbed: Path, cli: Cli, tmp_path: Path) -> None:
    results = tmp_path / "results"
    subprocess.run(["cp", "-r", str(undisturbed), str(results)], check=True)
    cli("run", study, "space.lr.values=[0.01]", "space.batch_size.values=[16]",
        "space.weight_decay.values=[0.0,0.01]", f"results={results}")
    for table in ("trials", "steps", "layers", "spectra"):
        frame = pd.read_parquet(results / table)
        assert frame["weight_decay"].notna().all()
        assert set(frame["weight_decay"]) == {0.0, 0.01}
    trials = pd.read_parquet(results / "trials")
    assert len(trials) == TRIALS + 2  # those without decay were there already


def test_interrupt_commits_and_the_same_command_continues(
        study: Path, undisturbed: Path, cli: Cli, stored: Tables, tmp_path: Path) -> None:
    results = tmp_path / "results"
    status = kill_after(study, results, signal.SIGINT, 0.1, "pack=off")  # so that they end one after another
    assert status == 130
    assert 0 < driving.committed(results) < TRIALS
    assert not (results / ".lease").exists()
    cli("run", study, f"results={results}")
    for table, frame in stored(undisturbed).items():
        pd.testing.assert_frame_equal(stored(results)[table], frame, rtol=ROUNDING, atol=TINY)


def test_a_worker_that_dies_costs_nothing(
        study: Path, undisturbed: Path, stored: Tables, tmp_path: Path) -> None:
    results = tmp_path / "results"
    driver = driving.start("run", study, f"results={results}")
    # There are no workers at the moment between two packs.
    workers = driving.wait(lambda: driving.workers(driver) if driving.committed(results) else [], driver, 120)
    workers[0].kill()
    driving.ended(driver, 0, 120)
    for table, frame in stored(undisturbed).items():
        pd.testing.assert_frame_equal(stored(results)[table], frame, rtol=ROUNDING, atol=TINY)


def test_five_hundred_trials_make_few_files(cli: Cli, tmp_path: Path) -> None:
    path, results = tmp_path / "many.yaml", tmp_path / "results"
    path.write_text("""
study: many
question: How many files?
trial:
  task: {name: gaussian_regression, dim: 4, samples: 16}
  model: {name: mlp, depth: 0}
  optimizer: {name: sgd, lr: 0.01}
  budget: {steps: 2}
  batch_size: 4
space:
  lr: {low: 1.0e-3, high: 0.1, scale: log}
  seed: {replicates: 2}
design: {name: sobol, trials: 250}
""")
    cli("run", path, f"results={results}")
    assert driving.committed(results) == 500
    assert sum(len(files) for _, _, files in os.walk(results)) < 50
