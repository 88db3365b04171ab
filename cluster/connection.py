"""What a target gives: a live connection to Ray, or one line that says why not."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any


class ClusterError(Exception):
    """The cluster cannot be reached or used. The message is one line with the fix."""


@dataclass(frozen=True)
class Connection:
    """A live connection. ``cpus`` and ``gpus`` are the cluster's totals when it was made."""

    target: str
    nodes: int
    cpus: float
    gpus: float

    @classmethod
    def made(cls, target: str) -> Connection:
        """Describe the cluster this process has just joined."""
        import ray

        total = ray.cluster_resources()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        return cls(target, nodes, total.get("CPU", 0.0), total.get("GPU", 0.0))

    def slots(self, resources: dict[str, float]) -> int:
        """How many workers with these resources fit at once, by the cluster's totals."""
        have = {"cpu": self.cpus, "gpu": self.gpus}
        return int(min(have[name] // need for name, need in resources.items() if need > 0))


def init(**arguments: Any) -> None:
    """``ray.init`` without its noise."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about future GPU masking
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **arguments)
