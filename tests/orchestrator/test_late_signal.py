"""A signal that comes when the last trial is done ends nothing early."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.conclude import conclude
from orchestrator.run import Outcome
from orchestrator.survey import Survey
from search_spaces import load_study


@pytest.mark.parametrize("left", [0, 1])
def test_it_is_an_interrupt_only_where_trials_are_left(tmp_path: Path, left: int) -> None:
    sink, study = io.StringIO(), load_study("batch_size_phases")
    outcome = Outcome(Survey(1, pending=left), signal.SIGTERM)
    assert conclude(study, str(tmp_path), outcome, Console(file=sink)) == (130 if left else 0)
    assert ("the same command continues" in sink.getvalue()) == bool(left)
