"""This machine alone: a Ray of our own, started for one sweep and stopped with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.connection import ClusterError, Connection, init

# Rows travel in small messages and data are loaded by each worker, so the object store holds next to nothing.
OBJECT_STORE_BYTES = 128 * 2**20


def cpus() -> int:
    """Cores this process may use (an affinity mask or a container's limit counts)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@contextmanager
def connect() -> Iterator[Connection]:
    """Start Ray on this machine; leaving the context stops it. Raises ClusterError if it does not come up."""
    import ray

    if ray.is_initialized():
        raise ClusterError("this process is already connected to Ray; run the sweep in a process of its own")
    try:
        init(address="local", num_cpus=cpus(), include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
    except Exception as error:
        raise ClusterError(f"Ray did not start on this machine: {' '.join(str(error).split())[:300]}; "
                           "see `phasesweep doctor`") from error
    try:
        yield Connection.made("this machine")
    finally:
        ray.shutdown()
