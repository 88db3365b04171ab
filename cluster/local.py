"""This machine alone: a Ray of our own, started for one sweep and stopped with it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from cluster.connection import Connection, session

# Rows travel in small messages and data are loaded by each worker, so the object store holds next to nothing.
OBJECT_STORE_BYTES = 128 * 2**20
# By default Ray starts a worker for each core and waits for them; Tune's actors cannot use them and start their own.
SYSTEM = {"prestart_worker_first_driver": False}
CGROUP = Path("/sys/fs/cgroup")


def connect() -> AbstractContextManager[Connection]:
    """Start Ray on this machine; leaving the context stops it, and so does the end of this process, however it ends.

    Raises ClusterError on entering if it does not come up.
    """
    return session("this machine", address="local", num_cpus=cpus(), include_dashboard=False,
                   object_store_memory=OBJECT_STORE_BYTES, _system_config=SYSTEM)


def cpus() -> int:
    """Cores this process may use: an affinity mask and a container's share of time both count; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota, period in (("cpu.max", "cpu.max"), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:  # cgroup v2 has "quota period" in one file, v1 has two files; "max" and -1 mean no limit
            share = int((CGROUP / quota).read_text().split()[0]) / int((CGROUP / period).read_text().split()[-1])
        except (OSError, ValueError):
            continue
        if share > 0:
            cores = min(cores, max(1, int(share)))
    return cores
