"""A sweep that is handed over to run elsewhere, and what every target can do with it.

A target is a frozen dataclass in a file of its own. Its fields are the options that ``--with key=value`` sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from cluster.bundle import Bundle


class State(Enum):
    """How far a job is; the value is shown to the user."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown there"

    @property
    def final(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in (State.WAITING, State.RUNNING)


@dataclass(frozen=True)
class Job:
    """What is handed over: once ``bundle`` is unpacked there, ``python -m orchestrator.cli *arguments`` in its folder
    runs the study, or continues it; exit status 0 where all is done. ``results`` is where results go, as seen there,
    ``into`` whether those of another study may be there."""

    name: str
    bundle: Bundle
    results: str
    into: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the ``phasesweep`` command there, on a node of the Ray cluster that the target made or found."""
        return ("submit", "study.yaml", "--to", "auto", f"{'into' if self.into else 'results'}={self.results}")


@dataclass(frozen=True)
class Place:
    """Where a job's results go, as seen there; ``how`` says it in words, and ``fetched`` whether they must be brought
    here afterwards."""

    results: str
    how: str
    fetched: bool


class Target(Protocol):
    """What runs jobs. Every method raises ClusterError, in one line with the fix, where the other side cannot be
    reached, refuses us, or has no such thing (``sbatch``, say) on this machine."""

    def place(self, name: str, results: str) -> Place:
        """Where the results of a study called ``name`` go, if the user says ``results``: a URI, a path, or a relative
        path. ClusterError where this target could not keep them there."""

    def look(self) -> str:
        """One line on what is there: that it answers, and its version."""

    def text(self, job: Job) -> str:
        """What would be sent, as text: a script, a manifest, a request. Sends nothing, reads no token."""

    def submit(self, job: Job) -> str:
        """Hand it over; returns the id that the other side gave it, or took. It goes on when this process ends."""

    def state(self, number: str) -> State:
        """How far it is."""

    def why(self, number: str) -> str:
        """Why it waits or has failed, as far as that is known, in one line; else empty."""

    def follow(self, number: str) -> Iterator[str]:
        """The lines of its output as they come, from the first on, until it has ended."""

    def cancel(self, number: str) -> None:
        """Ask it to stop: it saves what is in training, commits what is done, and ends. No error if it has ended."""

    def fetch(self, number: str, results: str, into: Path) -> int:
        """Bring the files of the results folder ``results`` there that are not here yet into ``into``; returns how
        many bytes came. Files are replaced one by one and whole, the ``trials`` parts last."""
