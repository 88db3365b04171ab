"""The trainable that Ray Tune schedules: it trains the trials of one pack one by one and returns their rows."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from ray import tune

from orchestrator.queue import Pack
from orchestrator.version import VERSION
from trials import usercode
from trials.errors import describe
from trials.measure import Measure
from trials.observer import Emitted
from trials.records import Rows
from trials.spec import TrialSpec
from trials.trainer import train

FLUSH_SECONDS = 0.5  # rows of short trials travel together


@dataclass(frozen=True)
class Job:
    """What every pack of one run has in common; sent to a worker once."""

    measure: Measure
    schemas: Mapping[str, pa.Schema]
    axes: tuple[str, ...]
    device: str
    cpus: float
    retries: int
    folder: str
    cwd: str
    code: str | None


class Worker(tune.Trainable):
    """A pack of trials, given as ``config["pack"]``; each step returns the rows of some of them as Arrow bytes."""

    def setup(self, config: dict[str, Any], job: Job) -> None:  # type: ignore[override]
        """Called once a process: its imports and its data stay from pack to pack."""
        self.job = job
        usercode.search_in(job.folder)
        torch.set_num_threads(max(1, int(job.cpus)))
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next pack in the same process."""
        if os.path.isdir(self.job.cwd):  # Tune goes to a folder of its own; user code is to see the driver's
            os.chdir(self.job.cwd)
        self.pack: Pack = new_config["pack"]
        self.specs = list(self.pack.specs.values())
        return True

    def step(self) -> dict[str, Any]:
        """Train for at least FLUSH_SECONDS or to the end of the pack."""
        began = time.perf_counter()
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self.job.schemas}
        ids: list[str] = []
        while self.specs and (not ids or time.perf_counter() - began < FLUSH_SECONDS):
            spec = self.specs.pop(0)
            ids.append(spec.trial_id)
            self._run(spec, rows)
        return {
            "rows": Rows.build(self.job.schemas, rows).to_bytes(),
            "ids": ids, "seconds": time.perf_counter() - began,
            "done": not self.specs,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: finished trials are committed, unfinished ones begin again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def _run(self, spec: TrialSpec, rows: dict[str, list[dict[str, Any]]]) -> None:
        """Train one trial, with its retries, and add its rows."""
        began = time.perf_counter()
        attempts = self.pack.attempts[spec.trial_id]
        while True:
            attempts += 1
            try:
                emitted = train(spec, self.job.measure, self.job.device)
                break
            except (Exception, SystemExit) as error:
                if attempts > self.job.retries:
                    emitted = Emitted(failed(error, time.perf_counter() - began))
                    break
        for table, found in trial_rows(spec, emitted, attempts, self.job).items():
            rows[table] += found


def failed(error: BaseException, wall_time: float) -> dict[str, Any]:
    """The trial row of an error."""
    return {"status": "failed", "reason": describe(error), "wall_time": wall_time}


def trial_rows(spec: TrialSpec, emitted: Emitted, attempts: int, job: Job) -> dict[str, list[dict[str, Any]]]:
    """The rows of a trial by table, complete with id, config columns and provenance."""
    flat = spec.flat()
    common = {"trial_id": spec.trial_id, **{name: flat.get(name) for name in job.axes}}
    trial = {
        **flat, "trial_id": spec.trial_id, **emitted.trial, "attempts": attempts,
        "finished_at": datetime.datetime.now(datetime.timezone.utc), "device": job.device, "host": platform.node(),
        "torch_version": torch.__version__, "version": VERSION, "code": job.code, "measure": job.measure.json,
        "config": spec.canonical,
    }
    return {"trials": [trial], **{table: [{**common, **row} for row in getattr(emitted, table)]
                                  for table in ("steps", "layers", "spectra")}}
