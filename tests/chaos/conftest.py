"""Studies to be disturbed, and what it means that nothing was lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from support import Cli, Tables
from trained import trained

# Trained one by one, a trial's numbers are the same to the last digit wherever and whenever it is trained.
STUDY = """
study: chaos
question: Are the rows the same whatever happens?
trial:
  task: digits
  model: {name: mlp, width: 64, depth: 1}
  optimizer: {name: sgd, momentum: 0.5}
  budget: {steps: 3000}
  batch_size: 16
  precision: float64
space:
  lr: [0.01, 0.02]
  seed: {replicates: 16}
measure: {training: log, weights: ends, eigenvalues: last, changes: none}
device: cpu
pack: off
"""

Same = Callable[..., None]


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 trials of about a second."""
    path = tmp_path_factory.mktemp("study") / "chaos.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="session")
def undisturbed(study: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of ``study``."""
    results = tmp_path_factory.mktemp("undisturbed") / "results"
    cli("run", study, f"results={results}", timeout=600)
    return results


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 trials of a few hundredths of a second."""
    path = tmp_path_factory.mktemp("study") / "small.yaml"
    path.write_text(STUDY.replace("study: chaos", "study: small").replace("steps: 3000", "steps: 50"))
    return path


@pytest.fixture(scope="session")
def small_undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of ``small``."""
    return trained(small, tmp_path_factory.mktemp("undisturbed") / "results")


@pytest.fixture(scope="session")
def same(stored: Tables) -> Same:
    """Check that a results folder holds what an undisturbed run gives: every trial once, none failed, row for row the
    same numbers, to the relative tolerance ``rounding``; and no file that a driver at work or a killed one has."""
    def compare(results: Path, undisturbed: Path, rounding: float = 0.0) -> None:
        found, expected = stored(results), stored(undisturbed)
        assert "failed" not in set(found["trials"]["status"])
        for name, frame in expected.items():
            assert len(frame) > 0
            pd.testing.assert_frame_equal(found[name].drop(columns="host", errors="ignore"),
                                          frame.drop(columns="host", errors="ignore"), rtol=rounding, atol=0.0)
        assert sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file() and (
            path.name.endswith(".tmp") or path.name == ".lease" or ".checkpoints" in path.parts)) == []
    return compare
