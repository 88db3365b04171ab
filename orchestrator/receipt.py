"""What is kept of a sweep that was handed over, in the user's own folder on this machine: how to find it again."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import Target, target
from orchestrator.folder import Folder
from trials import storage
from trials.errors import UserError


@dataclass(frozen=True)
class Receipt:
    """``to`` and ``options`` say which target, ``number`` is the job's there, ``results`` where its results go there
    and ``fetched`` whether they must be brought here."""

    to: str
    options: list[str]
    number: str
    results: str
    fetched: bool

    @property
    def target(self) -> Target:
        """What runs it. Raises ClusterError."""
        found = target(self.to, self.options)
        assert found is not None
        return found

    def save(self, results: str) -> None:
        """Keep it for the results folder ``results``, in place of an earlier one."""
        _state().write(_name(results), json.dumps(asdict(self), indent=1).encode())


def load(results: str) -> Receipt | None:
    """Of the sweep for this results folder; None where none was handed over from here. UserError for a damaged one."""
    folder, name = _state(), _name(results)
    try:
        receipt = Receipt(**json.loads(folder.read(name)))
        texts = (receipt.to, receipt.number, receipt.results, *receipt.options)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UserError(f"{folder.display(name)} is damaged; delete it, and submit again to go on") from None
    return receipt


def needed(results: str) -> Receipt:
    """Of the sweep for this results folder. UserError where there is none."""
    receipt = load(results)
    if receipt is None:
        raise UserError(f"{storage.masked(results)}: no sweep was handed over from this machine; `phasesweep submit` "
                        "does it, with --to http://head:8265, slurm, kubernetes, aws, gcp or azure")
    return receipt


def _state() -> Folder:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Folder.open(Path(base) / "phasesweep" / "jobs")


def _name(results: str) -> str:
    where = results.rstrip("/") if storage.is_uri(results) else Folder.open(results).root
    return f"{hashlib.blake2b(where.encode(), digest_size=10).hexdigest()}.json"
