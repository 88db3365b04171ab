"""The results folder for nodes that do not see it: an actor on the driver's node reads and writes for them."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.client import ray as client
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster import Connection
from orchestrator.folder import Folder
from trials.errors import UserError

SECONDS = 60.0  # for an answer
CALLS = 8  # at once


class Distant:
    """As much of a ``Folder`` as checkpoints take. Every method raises UserError where there is no answer."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def list(self, sub: str = "") -> list[str]:
        """Names of the files in ``sub``."""
        return list(self._call("list", sub))

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError when there is none."""
        return bytes(self._call("read", name))

    def write(self, name: str, data: bytes) -> None:
        """Replace (or create) a file at once."""
        self._call("write", name, data)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._keeper, method).remote(*arguments), timeout=SECONDS)
        except (UserError, FileNotFoundError):
            raise
        except ray.exceptions.RayError as error:
            raise UserError(f"the driver's node does not answer: {type(error).__name__}") from error


def keeper(folder: Folder, cluster: Connection) -> Any:
    """A ``Folder`` of that folder as an actor on this process' node; it ends with this process.

    None where there is no need for it, and where there is no way: a URI, which all nodes see; a cluster of this
    machine alone; a client, which is on no node.
    """
    if not folder.local or cluster.ours or client.is_connected():  # type: ignore[no-untyped-call]
        return None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote: Any = ray.remote
    actor = remote(num_cpus=0, max_restarts=-1, max_concurrency=CALLS, scheduling_strategy=here)(Folder)
    return actor.remote(folder.filesystem, folder.root, folder.where)
