"""Shared by all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import objects
import pandas as pd
import pytest
from support import COMMAND, Cli, Tables

# Set before Ray and OpenMP read them: two cores, quiet, and no usage reports.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# What may differ between two runs of the same trials.
TIMES = ["wall_time", "finished_at", "elapsed", "attempts", "lanes"]


@pytest.fixture(autouse=True)
def _same_folder() -> Iterator[None]:
    """A test that leaves its process in another folder is named, rather than the later ones that fail of it."""
    here = os.getcwd()
    yield
    there = os.getcwd()
    os.chdir(here)
    assert there == here


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for those of sockets."""
    folder = tempfile.mkdtemp(dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run the command line in a process of its own and return when it ends; fails on a status other than ``status``."""
    def run(*arguments: object, status: int = 0, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
        assert done.returncode == status, f"exit {done.returncode}, expected {status}\n{done.stdout}\n{done.stderr}"
        return done
    return run


@pytest.fixture(scope="session")
def object_store() -> Iterator[objects.ObjectStore]:
    """An S3 server, with one bucket for all tests: each takes a folder of its own."""
    with objects.serving() as store:
        yield store


@pytest.fixture
def bucket(object_store: objects.ObjectStore, monkeypatch: pytest.MonkeyPatch) -> objects.ObjectStore:
    """The server, for a process with credentials."""
    for name, value in objects.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    object_store.counted()
    return object_store


@pytest.fixture(scope="session")
def stored() -> Tables:
    """The four tables of a results folder without what depends on time, in a fixed order, for comparison."""
    def read(results: Path) -> dict[str, pd.DataFrame]:
        tables = {}
        for name in ("trials", "steps", "layers", "spectra"):
            frame = pd.read_parquet(results / name)
            keys = [key for key in ("trial_id", "step", "layer") if key in frame.columns]
            assert not frame.duplicated(keys).any(), f"{name}: rows that are there twice"
            frame = frame.drop(columns=[column for column in TIMES if column in frame.columns])
            tables[name] = frame[sorted(frame.columns)].sort_values(keys, ignore_index=True)
        return tables
    return read
