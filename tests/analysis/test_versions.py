"""Trials that ran with several versions of a user's code or data are said to be pooled."""

from __future__ import annotations

import json

import pandas as pd

from analysis.versions import mixed

TASK = json.dumps({"task": {"name": "data.py:cells"}})
NOISY = json.dumps({"task": {"name": "data.py:cells", "noise": 0.1}})


def trials(*rows: tuple[str, str | None, str | None, str]) -> pd.DataFrame:
    """A row of (model, code, data, config) a trial."""
    frame = pd.DataFrame(rows, columns=["model", "code", "data", "config"])
    return frame.assign(task=["data.py:cells" if data else "digits" for data in frame["data"]])


def test_versions_of_one_model_or_of_one_tasks_data_are_said() -> None:
    found = mixed(trials(("net.py:build", "a", "1 0.5", TASK), ("net.py:build", "a", "1 0.50001", TASK),
                         ("net.py:build", "b", "2 0.5", TASK)))
    assert found == ["pools 2 and 1 trials of 2 versions of net.py:build and data.py:cells",
                     "pools 2 and 1 trials of 2 versions of the data of data.py:cells"]


def test_several_models_and_tasks_are_no_versions() -> None:
    assert mixed(trials(("net.py:build", "a", "1 0.5", TASK), ("other.py:build", "b", "2 0.5", NOISY),
                        ("mlp", None, None, TASK), ("mlp", None, None, NOISY))) == []
