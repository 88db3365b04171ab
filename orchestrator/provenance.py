"""``study.yaml`` in a results folder: the resolved study and what ran it."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version

from orchestrator.version import VERSION
from search_spaces import Study

LIBRARIES = ("torch", "ray", "optuna", "numpy", "pyarrow")


def study_file(study: Study) -> bytes:
    """The file's content: provenance as comments, then the study, which runs again as it stands."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (f"# Written by phasesweep {VERSION} on {platform.node()} at {now}.\n"
            f"# Python {platform.python_version()}, {libraries}.\n"
            f"{study.resolved()}").encode()
