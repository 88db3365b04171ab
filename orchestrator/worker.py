"""The trainable that Ray Tune schedules: it trains the trials of one pack and returns their rows."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import signal
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import torch
from ray import tune

from cluster import local_cpus
from orchestrator.checkpoints import FolderCheckpoints, Kept
from orchestrator.distant import Distant
from orchestrator.exits import no_exit
from orchestrator.folder import Folder
from orchestrator.lane_count import choose
from orchestrator.queue import Pack
from orchestrator.stopping import Asked
from orchestrator.streams import keep_open, remember
from orchestrator.time_limit import TimeUp, time_limit, too_long, within
from orchestrator.version import VERSION
from trials import usercode
from trials.checkpoint import Stopped
from trials.errors import UserError, describe
from trials.measure import Measure
from trials.observer import Emitted
from trials.packs.pack import train_pack
from trials.packs.structure import structure
from trials.packs.unfit import lasting, reason
from trials.records import Rows
from trials.setup import load_data
from trials.spec import TrialSpec
from trials.tasks import own
from trials.trainer import train

FLUSH_SECONDS = 0.5  # rows of short trials travel together


@dataclass(frozen=True)
class Job:
    """What every pack of one run has in common; sent to a worker once.

    ``seconds`` are what a trial may take, 0 for any time; ``keeper`` keeps checkpoints for nodes that do not see the
    results; ``components`` are the study's tasks and models; ``run`` is what this run is called where it is told to
    stop; ``data`` are the fingerprints of the data that the user's tasks gave in the driver.
    """

    measure: Measure
    schemas: Mapping[str, pa.Schema]
    axes: tuple[str, ...]
    cpus: float
    retries: int
    lanes: int
    checkpoint_seconds: float
    results: str
    folder: str
    cwd: str
    code: str | None
    seconds: float
    keeper: Any = None
    components: tuple[str, ...] = ()
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    data: Mapping[str, str] = field(default_factory=dict)


class _Unpacked(Exception):
    """Why trials are not trained side by side."""


class Worker(tune.Trainable):
    """A pack of trials, given as ``config["pack"]``; each step returns the rows of some of them as Arrow bytes."""

    unfit: ClassVar[dict[str, str]] = {}  # why trials of a structure cannot be trained side by side, in this process
    kept = Kept()  # until it has looked
    edited = ""

    def setup(self, config: dict[str, Any], job: Job) -> None:  # type: ignore[override]
        """Called once a process: its imports and its data stay from pack to pack."""
        self.job = job
        # Ray's own would raise SystemExit in whatever runs just now, which would be a trial's failure.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        usercode.search_in(job.folder)
        own.expect(job.data)
        remember()
        self._go_home()
        for name in filter(usercode.is_usercode, job.components):  # which may register knobs that trials name
            # What is wrong with it is said by the trials that cannot do without it.
            with no_exit(), contextlib.suppress(UserError, TimeUp), time_limit(job.seconds):
                usercode.load(name, name)
        self.edited = _edited(job)
        torch.set_num_threads(max(1, min(int(job.cpus), local_cpus())))  # a node may say that it has more than it has
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next pack in the same process."""
        self._go_home()
        self.pack: Pack = new_config["pack"]
        stamp = json.dumps([self.job.measure.json, self.job.code, VERSION])
        # A look counts for all packs to come, but those with a trial that another process has had in training since.
        if self.kept.folder is None or self.pack.again:
            self.kept = Kept.look(Folder.open(self.job.results), self.job.keeper and Distant(self.job.keeper))
        self.checkpoints = FolderCheckpoints(self.kept, stamp, self.job.checkpoint_seconds, Asked(self.job.run))
        self.results = self._results()
        # Why trials were trained by themselves, by id; empty where nothing is known against packs of their kind.
        self.alone: dict[str, str] = {}
        return True

    def _go_home(self) -> None:
        if os.path.isdir(self.job.cwd):  # Tune goes to a folder of its own; user code is to see the driver's
            os.chdir(self.job.cwd)

    def step(self) -> dict[str, Any]:
        """Train for at least FLUSH_SECONDS, or to the end of the pack, or until the run is told to stop."""
        self.config = {}  # Tune sends it back with every result, and the driver would keep all packs to the end
        began = time.perf_counter()
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self.job.schemas}
        ids: list[str] = []
        self.alone = {}
        done, wrong = True, ""
        keep_open()
        try:
            if self.edited:
                raise own.Changed(self.edited)
            with no_exit(), contextlib.suppress(Stopped):
                for spec, emitted, attempts in self.results:
                    ids.append(spec.trial_id)
                    for table, found in trial_rows(spec, emitted, attempts, self.job, self.pack.device).items():
                        rows[table] += found
                    if time.perf_counter() - began > FLUSH_SECONDS:
                        done = False
                        break
        except own.Changed as error:
            wrong = str(error)
        return {"rows": Rows.build(self.job.schemas, rows).to_bytes(), "ids": ids,
                "seconds": time.perf_counter() - began, "done": done, "wrong": wrong, "alone": self.alone}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: finished trials are committed, long ones keep checkpoints of their own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def _results(self) -> Iterator[tuple[TrialSpec, Emitted, int]]:
        """Each trial of the pack with what it emitted and how often it was tried."""
        groups: dict[str, list[TrialSpec]] = {}
        for spec in self.pack.specs.values():
            groups.setdefault(structure(spec), []).append(spec)
        for specs in groups.values():
            self._look_at_data(specs[0])
            left = {spec.trial_id: spec for spec in specs}
            why = ""
            # Whatever is wrong with one of them is said where it is trained alone.
            try:
                for spec, emitted in within(len(specs) * self.job.seconds, self._side_by_side(specs)):
                    del left[spec.trial_id]
                    yield spec, emitted, self.pack.attempts[spec.trial_id] + 1
            except TimeUp:
                why = "side by side they took more than resources.seconds each"
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # a worker has no keyboard
                why = str(error) if isinstance(error, _Unpacked) else reason(error)
                if lasting(error):
                    self.unfit[structure(specs[0])] = why
            for spec in left.values():
                emitted, attempts = self._alone(spec)
                if emitted.trial["status"] != "failed":
                    self.alone[spec.trial_id] = why or self.unfit.get(structure(spec), "")
                yield spec, emitted, attempts

    def _look_at_data(self, spec: TrialSpec) -> None:
        """Raise own.Changed where a task gives other data here than elsewhere: that ends the run, not the trial."""
        try:
            with time_limit(self.job.seconds):
                load_data(spec, self.pack.device)
        except own.Changed:
            raise
        except (Exception, SystemExit, TimeUp):  # said of the trials that want these data
            pass

    def _side_by_side(self, specs: list[TrialSpec]) -> Iterator[tuple[TrialSpec, Emitted]]:
        """Those of some trials of one structure that can be trained as lanes, where that pays. Raises what speaks
        against it; what will speak against it the next time too is kept in ``unfit``."""
        job, kind = self.job, structure(specs[0])
        if len(specs) < 2 or job.lanes == 1 or kind in self.unfit:
            return
        self.checkpoints.go_on()
        lanes = job.lanes
        if not lanes:
            choice = choose(specs[0], self.pack.device, len(specs))
            if choice.reason:
                raise _Unpacked(choice.reason)
            lanes = choice.lanes
        if lanes > 1:
            yield from train_pack(specs, job.measure, self.pack.device, lanes, self.checkpoints)

    def _alone(self, spec: TrialSpec) -> tuple[Emitted, int]:
        """Train one trial, with its retries."""
        keep_open()
        began = time.perf_counter()
        attempts = self.pack.attempts[spec.trial_id]
        while True:
            attempts += 1
            try:
                with time_limit(self.job.seconds):
                    return train(spec, self.job.measure, self.pack.device, self.checkpoints), attempts
            except TimeUp:  # the next time it would take as long
                return Emitted(failed(too_long(self.job.seconds), time.perf_counter() - began)), attempts
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # a worker has no keyboard
                if attempts > self.job.retries:
                    return Emitted(failed(describe(error), time.perf_counter() - began)), attempts


def failed(reason: str, wall_time: float) -> dict[str, Any]:
    """The trial row of a failure."""
    return {"status": "failed", "reason": reason, "wall_time": wall_time}


def _fingerprint(names: Iterable[str]) -> str | None:
    """The fingerprint of the user's code; None where that cannot be imported, which is why trials fail."""
    try:
        return usercode.fingerprint(names)
    except UserError:
        return None


def _edited(job: Job) -> str:
    """A line where the user's code is not here what it was in the driver when the run began: trials of one name would
    be trained by different code. Empty where it is the same, or cannot be read, which each trial says."""
    if _fingerprint(job.components) in (None, job.code):
        return ""
    names = {name.rpartition(":")[0]: None for name in job.components if usercode.is_usercode(name)}
    return (f"trial: {' and '.join(names)}, or what it imports beside it, was changed after the run began; leave these "
            "files alone while it is on. Finished trials are kept: the same command goes on from them, with the new "
            "code")


def trial_rows(spec: TrialSpec, emitted: Emitted, attempts: int, job: Job,
               device: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a trial by table, complete with id, config columns and provenance."""
    flat = spec.flat()
    common = {"trial_id": spec.trial_id, **{name: flat.get(name) for name in job.axes}}
    trial = {
        **flat, "trial_id": spec.trial_id, **emitted.trial, "attempts": attempts,
        "finished_at": datetime.datetime.now(datetime.timezone.utc), "device": device, "host": platform.node(),
        "torch_version": torch.__version__, "version": VERSION,
        "code": _fingerprint([spec.task["name"], spec.model["name"]]), "data": own.of(spec.task),
        "measure": job.measure.json,
        "config": spec.canonical,
    }
    return {"trials": [trial], **{table: [{**common, **row} for row in getattr(emitted, table)]
                                  for table in ("steps", "layers", "spectra")}}
