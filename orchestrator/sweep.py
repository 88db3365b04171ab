"""Run what a queue hands out under Ray Tune, and commit what comes back.

Ray Tune schedules: it starts workers, keeps them for pack after pack, and notices when one dies. It decides nothing
and remembers nothing for us: what there is to do comes from the queue, what is done is in the store, and Tune's own
files go to a temporary folder that is thrown away.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.exceptions import ActorUnavailableError

from cluster.errors import ClusterError
from cluster.scratch import scratch
from orchestrator.losses import kills, why
from orchestrator.placement import Scheduler, Workers
from orchestrator.presence import GONE, Presence
from orchestrator.queue import Pack, Queue
from orchestrator.signals import Signals
from orchestrator.stopping import say
from orchestrator.time_limit import too_long
from orchestrator.tuning import Feed, Harvest, Stop, tune
from orchestrator.worker import Job, Worker, failed, trial_rows
from trials.errors import UserError
from trials.observer import Emitted
from trials.records import Rows
from trials.spec import TrialSpec

COMMIT_SECONDS = 1.0  # a finished trial waits at most this long for its commit
COMMIT_TRIALS = 2000  # and at most this many wait together
GRACE_SECONDS = 25.0  # workers that are told to stop may take this long: Slurm and Kubernetes kill after 30 s


class _Leave(BaseException):
    """Ends Tune's loop without its clean-up, which waits 15 s for workers that do not answer."""


class Sweep:
    """One run of a queue by ``workers``, to be stopped by ``signals``. ``commit`` stores rows; ``tick`` is called many
    times a second, and ``tell`` with a line for the user.

    ``failure`` holds a UserError that ended the run: a full disk, a lost lease.
    """

    def __init__(self, queue: Queue, job: Job, workers: Workers, commit: Callable[[Rows], None],
                 tick: Callable[[], None], tell: Callable[[str], None], signals: Signals) -> None:
        self.queue, self.job, self.workers = queue, job, workers
        self._commit, self._tick, self._tell = commit, tick, tell
        self.failure: UserError | None = None
        self._signals, self._presence = signals, Presence()
        self._running: dict[int, tuple[float, frozenset[str]]] = {}  # since when, and the nodes alive then, by pack
        self._oom_kills = kills()
        self._told: float | None = None  # when the workers were told to stop
        self._pending: list[Rows] = []
        self._pending_trials, self._oldest = 0, 0.0

    @property
    def interrupted(self) -> signal.Signals | None:
        """The signal that ended the run, if one did."""
        return self._signals.caught

    @property
    def training(self) -> bool:
        """Whether a worker has a pack."""
        return bool(self._running)

    @property
    def stopping(self) -> bool:
        """Whether the run should end early."""
        return self.failure is not None or self.interrupted is not None

    @property
    def idle(self) -> bool:
        """Whether the run should end now: there is nothing to wait for."""
        return self.failure is not None or (self.interrupted is not None and not self._running)

    def run(self) -> None:
        """Run to the end, or to an error or signal; returns when everything that came back is committed.

        Raises UserError where the store cannot be written or is no longer ours, and ClusterError where Ray is gone.
        """
        gone, trainable = False, tune.with_parameters(Worker, job=self.job)
        try:
            with scratch() as folder, self._presence:
                # What Tuner.fit() calls; but that would move the driver to the cluster where we connect as a client.
                tune.run(trainable, name="sweep", storage_path=str(folder), verbose=0, num_samples=-1,
                         reuse_actors=True, search_alg=Feed(self), scheduler=Scheduler(self.workers),
                         callbacks=[Harvest(self)], stop=Stop(self), max_failures=0, raise_on_failed_trial=False,
                         _remote=False)
        except _Leave:
            gone = self._presence.lost
        except Exception:  # what Ray raises where it is gone is of many kinds
            if self._presence.look() and not self._presence.lost:
                raise
            gone = True
        self.flush()
        if self.failure is not None:
            raise self.failure
        if gone and self.interrupted is None:
            raise ClusterError(GONE)

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Tune pickles what it is given for a restore of its own, which is never made: nothing of ours goes there."""
        return object, ()

    def received(self, pack: Pack, result: dict[str, Any]) -> None:
        """Rows of some trials of ``pack`` have arrived."""
        self.queue.came_back(pack.number, result["ids"], result["seconds"], result["alone"])
        rows = Rows.from_bytes(result.pop("rows"))
        if result["ids"]:
            self._hold(rows)
        if result.get("wrong"):
            self.flush()
            self.failure = UserError(result["wrong"])

    def began(self, pack: Pack) -> None:
        """A worker has ``pack`` now."""
        self._running[pack.number] = time.monotonic(), self._presence.alive

    def ended(self, pack: Pack, error: BaseException | None = None) -> None:
        """``pack`` is over, and ``error`` is what Ray says where its worker is lost: trials that have not come back
        are tried again then."""
        since, nodes = self._running.pop(pack.number, (time.monotonic(), frozenset[str]()))
        seconds, left = time.monotonic() - since, self.queue.ended(pack.number)
        if left and not self.stopping:
            self._lost(pack, left, seconds, self._left(nodes, error), error)

    def _lost(self, pack: Pack, left: Mapping[str, TrialSpec], seconds: float, node_left: bool,
              error: BaseException | None) -> None:
        """Try the trials that are ``left`` of a pack again, where they are not to blame too often."""
        # Which trial of a pack killed its worker is not known; each gets a worker of its own, where it counts.
        to_blame = len(pack.specs) == 1 and not node_left
        past_limit = to_blame and 0 < self.job.seconds <= seconds
        for trial_id, spec in left.items():
            attempts = pack.attempts[trial_id] + to_blame
            if attempts <= self.job.retries and not past_limit:
                self.queue.again(spec, attempts)
                continue
            reason = too_long(self.job.seconds) if past_limit else why(error, self._oom_kills)
            emitted = Emitted(failed(reason, seconds))
            self._hold(Rows.build(self.job.schemas, trial_rows(spec, emitted, attempts, self.job, pack.device)))

    def _left(self, nodes: frozenset[str], error: BaseException | None) -> bool:
        """Whether a worker is lost because its node is: one of those at its begin is dead, or will be known to be, for
        of a process that died alone Ray knows at once. Ends the run where the node is our own."""
        self._presence.look()
        if self._presence.lost:
            raise _Leave
        return isinstance(error, ActorUnavailableError) or not nodes <= self._presence.alive

    def beat(self) -> None:
        """Called many times a second: commit what has waited long enough, refresh the display, look whether to go."""
        if self._presence.lost:
            raise _Leave
        if self.interrupted is not None and self._told is None:
            self._told = time.monotonic()
            threading.Thread(target=say, args=(self.job.run,), daemon=True).start()
            self._tell("stopping: trials in training are saved (again to stop at once)")
        if self._told is not None and time.monotonic() - self._told > GRACE_SECONDS:
            raise _Leave
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
