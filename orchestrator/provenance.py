"""``study.yaml`` in a results folder: the resolved study and what ran it last.

What was run into the folder before, with settings whose trials are not among those of the last study, is kept beside it
as ``study.1.yaml`` and so on, so that every trial there has a file that describes it.
"""

from __future__ import annotations

import datetime
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from orchestrator.folder import Folder
from orchestrator.version import VERSION
from search_spaces import Study
from search_spaces.yaml_text import parse
from trials.errors import UserError

LIBRARIES = ("torch", "ray", "optuna", "numpy", "pyarrow")
_WRITTEN = "# Written by phasesweep"
_KEPT = re.compile(r"study\.([1-9][0-9]{0,5})\.yaml")


def kept_studies(folder: Folder) -> list[str]:
    """The files of studies that were run into the folder before the one in ``study.yaml``, oldest first."""
    return sorted((name for name in folder.list() if _KEPT.fullmatch(name)), key=lambda name: int(name.split(".")[1]))


def check_name(study: Study, folder: Folder) -> None:
    """Raise UserError unless the folder is empty, or a study of this name was run into it."""
    name = _plain(folder, "study.yaml").get("study", study.name)
    if name == study.name or study.name in (_plain(folder, file).get("study") for file in kept_studies(folder)):
        return
    raise UserError(f"{folder.shown}: holds the study {name!r:.110}, not {study.name!r}; give another results=PATH, or "
                    f"into={folder.shown} if it is the same study under a new name, or both are to be in one folder")


def check_replaced(folder: Folder) -> None:
    """Raise UserError where the first run into a folder would write over a file that is someone's own, such as the
    study that it reads."""
    files = folder.list()
    if "study.yaml" in files:
        content = folder.read("study.yaml")
        lost = ["study.yaml"] if content and not content.startswith(_WRITTEN.encode()) else []
    else:
        lost = [name for name in ("summary.csv", "summary.png") if name in files]
    if lost:
        raise UserError(f"{folder.display(lost[0])}: not written by phasesweep, and a run into this folder would "
                        "replace it; give another results=PATH, or give it another name")


def write_study(study: Study, folder: Folder, others: bool) -> str | None:
    """Write ``study.yaml``. Where the folder has ``others``, trials that are not this study's, what was there is kept,
    unless it is already; a line that says so."""
    said = None
    if others:
        kept = kept_studies(folder)
        before, asked = _asked(_plain(folder, "study.yaml")), json.loads(json.dumps(_asked(study.plain)))
        if before not in ({}, asked, *(_asked(_plain(folder, name)) for name in kept)):
            number = int(kept[-1].split(".")[1]) + 1 if kept else 1
            folder.write(f"study.{number}.yaml", folder.read("study.yaml"))
            said = (f"{folder.display('study.yaml')} was of other settings; kept as study.{number}.yaml. Verdicts, "
                    "table and figures are of the trials that this study asks for")
    folder.write("study.yaml", study_file(study))
    return said


def _plain(folder: Folder, file: str) -> Mapping[str, Any]:
    """A study file as plain data; empty where there is none, or it is no study."""
    try:
        found = parse(folder.read(file).decode(errors="replace"))
    except (FileNotFoundError, UserError):
        return {}
    return found if isinstance(found, dict) else {}


def _asked(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a study decides which trials it asks for."""
    return {key: plain[key] for key in ("trial", "space", "design") if key in plain}


def study_file(study: Study) -> bytes:
    """The file's content: provenance as comments, then the study, which runs again as it stands."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (f"{_WRITTEN} {VERSION} on {platform.node()} at {now}.\n"
            f"# Python {platform.python_version()}, {libraries}.\n"
            f"{study.resolved()}").encode()
