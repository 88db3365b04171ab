"""Checkpoints of trials in training, beside their results, so that a long trial does not begin anew.

A worker writes them where it can see the study's results folder, and elsewhere has the driver's node do it; whoever
trains the trial next goes on from there. The driver removes the checkpoint of a trial when its rows are committed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from orchestrator.folder import Folder
from trials.checkpoint import Checkpoint, Stopped
from trials.errors import UserError
from trials.spec import TrialSpec

if TYPE_CHECKING:
    from orchestrator.distant import Distant

SECONDS = 60.0  # between two checkpoints of a trial: what is lost at most
_SUB = ".checkpoints"


class FolderCheckpoints:
    """In a subfolder of ``folder``, for one pack of trials. ``stamp``, a line, is what must not have changed for a
    checkpoint to count: code, version and measurements. ``stopping`` says whether training is to stop. ``distant`` is
    the same folder by way of the driver's node, where there is such a way."""

    def __init__(self, folder: Folder, stamp: str, seconds: float, stopping: Callable[[], bool] = lambda: False,
                 distant: Distant | None = None) -> None:
        self._stamp, self._seconds, self._stopping = stamp.encode(), seconds, stopping
        self._folder: Folder | Distant = folder
        self._kept = _kept(folder)
        if self._kept is None and distant is not None:  # a node without the shared disk
            self._folder, self._kept = distant, _kept(distant)
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save those of all trials in training, be it because they are to stop."""
        if self._stopping():
            return True
        if self._kept is None or time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True

    def go_on(self) -> None:
        """Raise Stopped where training is to stop."""
        if self._stopping():
            raise Stopped

    def save(self, spec: TrialSpec, checkpoint: Checkpoint) -> None:
        """Keep it, in place of an earlier one; where that fails (a full disk, say) the trial goes on without."""
        if self._kept is None:
            return
        with contextlib.suppress(UserError):
            self._folder.write(self._name(spec), self._stamp + b"\n" + checkpoint.to_bytes())

    def load(self, spec: TrialSpec) -> Checkpoint | None:
        """The last one of this trial; None where there is none, or none that counts."""
        if self._kept is None or spec.trial_id not in self._kept:
            return None
        try:
            stamp, _, data = self._folder.read(self._name(spec)).partition(b"\n")
        except (UserError, FileNotFoundError):
            return None
        return Checkpoint.from_bytes(data) if stamp == self._stamp else None

    def drop(self, spec: TrialSpec) -> None:
        """Forget it; what is empty counts for nothing."""
        if self._kept is not None:
            with contextlib.suppress(UserError):
                self._folder.write(self._name(spec), b"")

    def _name(self, spec: TrialSpec) -> str:
        return f"{_SUB}/{spec.trial_id}"


def sweep(folder: Folder) -> None:
    """Remove what workers that were killed had half written."""
    folder.sweep(_SUB)


def _kept(folder: Folder | Distant) -> frozenset[str] | None:
    """Of which trials there are checkpoints; None where the study's folder is not seen, or is lost just
    now: then none are kept."""
    try:
        return frozenset(folder.list(_SUB)) if "study.yaml" in folder.list() else None
    except UserError:
        return None


def forget(folder: Folder, trial_ids: Iterable[str]) -> None:
    """Remove the checkpoints of trials that are done."""
    for name in set(trial_ids).intersection(folder.list(_SUB)):
        folder.delete(f"{_SUB}/{name}")
