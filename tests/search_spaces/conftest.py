from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces import Study, load_study
from trials import usercode

BASE: dict[str, Any] = {
    "study": "small",
    "trial": {
        "task": {"name": "digits"},
        "model": {"name": "mlp", "width": 16, "depth": 1},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "budget": {"epochs": 2},
        "seed": 5,
    },
}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Load a small study with these top-level keys put in, from a file called s.yaml."""
    monkeypatch.setattr(usercode, "_folders", [])

    def build(*overrides: str, **keys: Any) -> Study:
        file = tmp_path / "s.yaml"
        file.write_text(json.dumps({**BASE, **keys}))  # JSON is YAML
        return load_study(str(file), overrides)

    return build
