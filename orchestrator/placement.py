"""Where packs are trained: how many workers fit on the nodes that the cluster has just now, and what Ray Tune is told.

Nodes come and go, so they are counted again while a sweep runs. With ``device: auto`` the nodes that have a GPU take
packs for a GPU, and those that have none take packs for a CPU, both at once. A GPU's node gets no packs for its CPUs:
these feed the GPU, and on a workstation a CPU worker beside it costs the GPU more than it adds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.tune import PlacementGroupFactory
from ray.tune.schedulers import FIFOScheduler

from search_spaces import Study
from trials.errors import UserError

GPU_SHARE = 0.25  # of a GPU for each worker, where the study leaves it open: small trials do not fill one
COUNT_SECONDS = 3.0  # between two looks at the cluster's nodes

Node = Mapping[str, Any]


class Workers:
    """The workers that a study wants. ``slots`` says how many of them fit at once on each device, the one to be
    preferred first; it is one mapping, whose values change with ``count``."""

    def __init__(self, study: Study) -> None:
        cpu = {"CPU": study.resources.cpu}
        wants = {"cuda": {**cpu, "GPU": study.resources.gpu or GPU_SHARE}, "cpu": cpu}
        self._wants = {device: want for device, want in wants.items() if study.device in ("auto", device)}
        self.slots = dict.fromkeys(self._wants, 0)
        self._needs_gpu = "cuda" in self._wants and study.resources.gpu > 0
        self.count()

    def count(self) -> None:
        """Count again what fits. Node by node, for a worker is on one of them."""
        nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
        self._nodes = [node for node in nodes if node["Alive"]]
        with_gpu = [node["NodeID"] for node in self._nodes if node["Resources"].get("GPU", 0.0) > 0.0]
        self._kept = sorted(with_gpu) if "cuda" in self._wants else []  # from workers on a CPU
        for device, want in self._wants.items():
            self.slots[device] = sum(_fit(node["Resources"], want) for node in self._nodes
                                     if (node["NodeID"] in self._kept) == (device == "cuda"))

    def check(self, target: str) -> None:
        """Raise UserError where none of the nodes of ``target`` can ever hold a worker; where the study gives a worker
        a GPU, one must have it. Nodes with nothing to give, such as a head whose workers are still to come, are waited
        for."""
        have = [node["Resources"] for node in self._nodes if node["Resources"].get("CPU", 0.0) > 0.0]
        fits = self.slots["cuda"] if self._needs_gpu else any(self.slots.values())
        if not have or fits:
            return
        want = self._wants["cuda" if self._kept or self._needs_gpu else [*self._wants][-1]]
        best = max(have, key=lambda resources: [resources.get(name, 0.0) for name in reversed(want)])
        fix = "lower resources.cpu" + (" or resources.gpu, or change device" if "GPU" in want else "")
        raise UserError(f"resources: a worker wants {_words(want, want)}, but no node of {target} has that (the best "
                        f"has {_words(want, best)}); {fix}")

    def request(self, device: str) -> PlacementGroupFactory:
        """What Tune is to ask Ray for, for a worker on ``device``."""
        if device == "cuda" or not self._kept:
            return PlacementGroupFactory([self._wants[device]])
        # Ray knows no "not where there is a GPU", but every node has its id for a label. One with a GPU that comes
        # later is named from the next pack on.
        elsewhere = {"ray.io/node-id": f"!in({','.join(self._kept)})"}
        return PlacementGroupFactory([self._wants[device]], bundle_label_selector=[elsewhere])


class Scheduler(FIFOScheduler):
    """Tells Tune where each pack goes and for how many to ask, and makes it forget those that are over."""

    def __init__(self, workers: Workers) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._workers, self._counted = workers, time.monotonic()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A pack has been taken from the queue."""
        trial.update_resources(self._workers.request(trial.config["pack"].device))

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Called many times a second, between two of Tune's steps."""
        if time.monotonic() - self._counted > COUNT_SECONDS:
            self._workers.count()
            self._counted = time.monotonic()
        # As many packs wait as there are workers: all start at once, and each that ends finds its next.
        tune_controller.update_max_pending_trials(max(1, sum(self._workers.slots.values())))
        _forget(tune_controller)
        starting = _starting(tune_controller)
        for waiting in tune_controller._resources_to_pending_trials.values():
            waiting -= starting
        return next((trial for trial in tune_controller.get_trials()
                     if trial.status == trial.PENDING and trial not in starting), None)


def _starting(tune_controller: Any) -> set[Any]:
    """Packs whose worker is coming up. Tune would give them to the next worker that is free, and kill theirs: while
    packs are shorter than a worker takes to start, a node that comes late would never get one."""
    up = tune_controller._actor_manager._live_actors_to_ray_actors_resources
    return {trial for trial, actor in tune_controller._trial_to_actor.items()
            if actor in up and trial.status == trial.PENDING}


def _forget(tune_controller: Any) -> None:
    """Drop packs that are over. Tune keeps 31 kB of each to the end, and goes through all of them ten times a second.

    These lists are Tune's own; in a version that lacks one there is nothing in it to be dropped.
    """
    trials, actors = tune_controller.get_trials(), tune_controller._trial_to_actor
    over = {trial for trial in trials[:-1] if trial.is_finished() and trial not in actors}  # Tune wants one to talk of
    if not over:
        return
    trials[:] = [trial for trial in trials if trial not in over]
    for name in ("_live_trials", "_stopped_trials", "_failed_trials", "_trials_to_cache"):
        getattr(tune_controller, name, set()).difference_update(over)
    manager = tune_controller._actor_manager  # keeps a last call for each actor that was asked for and not needed
    calls, wanted = manager._pending_actors_to_enqueued_actor_tasks, manager._pending_actors_to_attrs
    for actor in [actor for actor in calls if actor not in wanted]:
        del calls[actor]


def _fit(resources: Mapping[str, float], want: Mapping[str, float]) -> int:
    """How many times ``want`` fits; by Ray's ten-thousandths, so that 0.1 fits into 1 ten times."""
    return min(round(resources.get(name, 0.0) * 1e4) // max(1, round(need * 1e4)) for name, need in want.items())


def _words(names: Mapping[str, float], resources: Mapping[str, float]) -> str:
    return " and ".join(f"{resources.get(name, 0.0):g} {name}" for name in names)
