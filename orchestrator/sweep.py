"""Run what a queue hands out under Ray Tune, and commit what comes back.

Ray Tune schedules: it starts workers, keeps them for pack after pack, and notices when one dies. It decides nothing
and remembers nothing for us: what there is to do comes from the queue, what is done is in the store, and Tune's own
files go to a temporary folder that is thrown away.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

# Read by ray.tune when it is imported: no files per trial, no reporter, no saving of its state, which would keep a copy
# of every trial, and Ctrl-C is ours to handle.
os.environ.update({
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "31536000", "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0"})

from ray import tune
from ray.tune.search import Searcher

from orchestrator.queue import Pack, Queue
from orchestrator.worker import Job, Worker, failed, trial_rows
from trials.errors import UserError
from trials.observer import Emitted
from trials.records import Rows

COMMIT_SECONDS = 1.0  # a finished trial waits at most this long for its commit
COMMIT_TRIALS = 2000  # and at most this many wait together

Commit = Callable[[Rows], None]


class WorkerLost(Exception):
    """The process that ran a trial died."""


class Sweep:
    """One run of a queue by so many ``workers``. ``commit`` stores rows; ``tick`` is called many times a second.

    ``failure`` holds a UserError that ended the run (a full disk, a lost lease); ``interrupted`` the signal that did.
    """

    def __init__(self, queue: Queue, job: Job, workers: int, commit: Commit, tick: Callable[[], None]) -> None:
        self.queue, self.job, self.workers, self._commit, self._tick = queue, job, workers, commit, tick
        self.failure: UserError | None = None
        self.interrupted: signal.Signals | None = None
        self._pending: list[Rows] = []
        self._pending_trials = 0
        self._oldest = 0.0

    @property
    def stopping(self) -> bool:
        """Whether the run should end early."""
        return self.failure is not None or self.interrupted is not None

    def run(self, resources: dict[str, float]) -> None:
        """Run to the end, or to an error or signal; returns when everything that came back is committed.

        Raises UserError where the store cannot be written or is no longer ours.
        """
        # So that all workers start at once: left alone, Tune waits for one before it asks for the next.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, self.workers))
        scratch = tempfile.mkdtemp(prefix="phasesweep-tune-")
        trainable = tune.with_resources(tune.with_parameters(Worker, job=self.job), resources)
        try:
            with _signals(self):
                # What Tuner.fit() calls; but that would move the driver to the cluster where we connect as a client.
                tune.run(trainable, name="sweep", storage_path=scratch, verbose=0, num_samples=-1, reuse_actors=True,
                         search_alg=_Feed(self), callbacks=[_Harvest(self)], stop=_Stop(self), max_failures=0,
                         raise_on_failed_trial=False, _remote=False)
            self.flush()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if self.failure is not None:
            raise self.failure

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Tune pickles what it is given for a restore of its own, which is never made: nothing of ours goes there."""
        return object, ()

    def received(self, pack: Pack, result: dict[str, Any]) -> None:
        """Rows of some trials of ``pack`` have arrived."""
        self.queue.came_back(pack.number, result["ids"], result["seconds"])
        self._hold(Rows.from_bytes(result.pop("rows")))

    def ended(self, pack: Pack) -> None:
        """``pack`` is over. Trials that have not come back, for their worker died, are tried again."""
        alone = len(pack.specs) == 1
        for trial_id, spec in self.queue.ended(pack.number).items():
            # Which trial of a pack killed its worker is not known; each gets a worker of its own, where it counts.
            attempts = pack.attempts[trial_id] + (1 if alone else 0)
            if self.stopping:
                continue
            if attempts <= self.job.retries:
                self.queue.again(spec, attempts)
                continue
            emitted = Emitted(failed(WorkerLost("the worker process died; out of memory?"), 0.0))
            self._hold(Rows.build(self.job.schemas, trial_rows(spec, emitted, attempts, self.job)))
        pack.specs.clear()  # Tune keeps every pack to the end

    def beat(self) -> None:
        """Called many times a second: commit what has waited long enough, refresh the display."""
        if self._pending and (time.monotonic() - self._oldest > COMMIT_SECONDS
                              or self._pending_trials >= COMMIT_TRIALS):
            self.flush()
        self._tick()

    def flush(self) -> None:
        """Commit everything that has arrived."""
        if not self._pending or self.failure is not None:
            return
        rows, self._pending, self._pending_trials = Rows.concat(self._pending), [], 0
        try:
            self._commit(rows)
        except UserError as error:  # Tune would wrap it in a traceback; it is raised once Tune has stopped
            self.failure = error

    def _hold(self, rows: Rows) -> None:
        if not self._pending:
            self._oldest = time.monotonic()
        self._pending.append(rows)
        self._pending_trials += len(rows.ids)


class _Feed(Searcher):
    """Hands the queue's packs to Tune as its trials."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(metric="seconds", mode="max")
        self._sweep = sweep

    def suggest(self, trial_id: str) -> Any:
        pack = None if self._sweep.stopping else self._sweep.queue.next_pack()
        if pack is not None:
            return {"pack": pack}
        # An adaptive design looks at what is committed, so nothing may be held back when it is asked.
        self._sweep.flush()
        done = self._sweep.stopping or self._sweep.queue.finished
        return Searcher.FINISHED if done else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback hears of it with more detail."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def get_state(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class _Harvest(tune.Callback):
    """Takes rows out of Tune's results before Tune keeps them, and hears of dead workers."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        if "rows" in result:
            self._sweep.received(trial.config["pack"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._sweep.ended(trial.config["pack"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._sweep.ended(trial.config["pack"])

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._sweep.beat()


class _Stop(tune.Stopper):
    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._sweep.stopping


class _signals:
    """SIGINT and SIGTERM end the sweep after its commit; a second one ends the process at once."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._sweep.interrupted is not None:
            raise KeyboardInterrupt
        self._sweep.interrupted = signal.Signals(number)
