"""Ray Tune, as a sweep uses it: what it is told, and how it asks for packs and hands back what came of them."""

from __future__ import annotations

import contextlib
import os
import pickle
from typing import TYPE_CHECKING, Any

# Read by ray.tune when it is imported: no files per trial, no reporter, no saving of its state, which would keep a copy
# of every trial, no counting of the cluster's cores, which would not return where it is gone, and Ctrl-C is ours.
os.environ.update({
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_STATE_REFRESH_PERIOD": "31536000",
    "TUNE_GLOBAL_CHECKPOINT_S": "31536000", "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0"})

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep

__all__ = ["Feed", "Harvest", "Stop", "tune"]

# Tune would give each worker an environment of its own, with the credentials of ours as part of its description, which
# Ray sends to nodes and writes to its logs. Workers on this machine inherit them; other nodes have their own. Without
# one, a worker starts half a second sooner, and a node needs nobody who makes it.
class_cache.ENV_VARS_TO_PROPAGATE, class_cache.DEFAULT_ENV_VARS = set(), {}


class Feed(Searcher):
    """Hands the queue's packs to Tune as its trials."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(metric="seconds", mode="max")
        self._sweep = sweep

    def suggest(self, trial_id: str) -> Any:
        self._sweep.beat()  # while nothing runs Tune does nothing but ask
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


class Harvest(TrialProgressCallback):  # in place of Tune's own, which keeps every trial
    """Takes rows out of Tune's results before Tune keeps them, and hears of dead workers."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        if "rows" in result:
            self._sweep.received(trial.config["pack"], result)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._sweep.began(trial.config["pack"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._sweep.ended(trial.config["pack"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error: BaseException | None = None
        with contextlib.suppress(Exception), open(trial.pickled_error_file, "rb") as file:  # Tune's, in our folder
            error = pickle.load(file)
        self._sweep.ended(trial.config["pack"], error)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._sweep.beat()


class Stop(tune.Stopper):
    """Ends Tune's loop when the sweep has nothing to wait for."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._sweep.idle
