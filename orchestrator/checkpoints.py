"""Checkpoints of trials in training, beside their results, so that a long trial does not begin anew.

A worker writes them where it can see the study's results folder, and elsewhere has the driver's node do it; whoever
trains the trial next goes on from there. The driver removes the checkpoint of a trial when its rows are committed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.folder import Folder
from trials.checkpoint import Checkpoint, Stopped
from trials.errors import UserError
from trials.spec import TrialSpec
from trials.tasks import own

if TYPE_CHECKING:
    from orchestrator.distant import Distant

SECONDS = 60.0  # between two checkpoints of a trial: what is lost at most
_SUB = ".checkpoints"


@dataclass(frozen=True)
class Kept:
    """What a process sees when it looks: the ``folder`` that it reads and writes, None where it sees none or has lost
    it just now, and the ids of the trials that have a checkpoint in it."""

    folder: Folder | Distant | None = None
    ids: frozenset[str] = frozenset()

    @classmethod
    def look(cls, folder: Folder, distant: Distant | None = None) -> Kept:
        """``distant`` is the same folder by way of the driver's node, where there is such a way."""
        for place in (folder, distant):
            with contextlib.suppress(UserError):
                if place is not None and "study.yaml" in place.list():
                    return cls(place, frozenset(place.list(_SUB)))
        return cls()


class FolderCheckpoints:
    """In a subfolder of ``folder``, for one pack of trials. ``stamp``, a line, is what must not have changed for a
    checkpoint to count: code, version and measurements; nor must the data of a user's task. ``stopping`` says whether
    training is to stop. What was seen in the folder before stands for it where there is no need to look again."""

    def __init__(self, folder: Folder | Kept, stamp: str, seconds: float,
                 stopping: Callable[[], bool] = lambda: False, distant: Distant | None = None) -> None:
        self._stamp, self._seconds, self._stopping = stamp.encode(), seconds, stopping
        self.kept = folder if isinstance(folder, Kept) else Kept.look(folder, distant)
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save those of all trials in training, be it because they are to stop."""
        if self._stopping():
            return True
        if self.kept.folder is None or time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True

    def go_on(self) -> None:
        """Raise Stopped where training is to stop."""
        if self._stopping():
            raise Stopped

    def save(self, spec: TrialSpec, checkpoint: Checkpoint) -> None:
        """Keep it, in place of an earlier one; where that fails (a full disk, say) the trial goes on without."""
        if self.kept.folder is None:
            return
        with contextlib.suppress(UserError):
            self.kept.folder.write(self._name(spec), self._stamped(spec) + b"\n" + checkpoint.to_bytes())

    def load(self, spec: TrialSpec) -> Checkpoint | None:
        """The last one of this trial; None where there is none, or none that counts."""
        if self.kept.folder is None or spec.trial_id not in self.kept.ids:
            return None
        try:
            stamp, _, data = self.kept.folder.read(self._name(spec)).partition(b"\n")
        except (UserError, FileNotFoundError):
            return None
        return Checkpoint.from_bytes(data) if stamp == self._stamped(spec) else None

    def drop(self, spec: TrialSpec) -> None:
        """Forget it; what is empty counts for nothing."""
        if self.kept.folder is not None:
            with contextlib.suppress(UserError):
                self.kept.folder.write(self._name(spec), b"")

    def _stamped(self, spec: TrialSpec) -> bytes:
        return self._stamp + (own.of(spec.task) or "").encode()

    def _name(self, spec: TrialSpec) -> str:
        return f"{_SUB}/{spec.trial_id}"


class Leftovers:
    """The checkpoints of trials that are ``done``, which the driver removes: what another has left at first, then as
    often as new ones may have come, for on an object store each look is a request."""

    def __init__(self, folder: Folder, done: Container[str]) -> None:
        self._folder, self._done = folder, done
        folder.sweep(_SUB)  # what workers that were killed had half written
        self.remove()

    def remove(self) -> None:
        """Remove them."""
        self._looked = time.monotonic()
        for name in self._folder.list(_SUB):
            if name in self._done:
                self._folder.delete(f"{_SUB}/{name}")

    def tidy(self) -> None:
        """Remove them if it is time to look again. To be called after a commit."""
        if time.monotonic() - self._looked >= SECONDS:
            self.remove()
