"""Fixtures of synthetic studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from synthetic import CONFIG, Study, study_schema


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """An empty study over batch_size and seed."""
    return Study(tmp_path / "results" / "demo")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study with axes of one's choice."""
    def make(axes: Sequence[str], name: str = "demo", config: Mapping[str, pa.DataType] = CONFIG) -> Study:
        return Study(tmp_path / "results" / name, study_schema(axes, config))
    return make
