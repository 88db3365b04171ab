"""This machine alone: a Ray of our own, started for one sweep and stopped with it.

It listens on the loopback interface only, takes a token that nobody else has, writes to a folder that nobody else may
read and that goes with it, and its processes hear no signal of our terminal.
"""

from __future__ import annotations

import os
import resource
import secrets
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cluster.connection import Connection, session
from cluster.errors import ClusterError
from cluster.lean import without_agents, without_services
from cluster.scratch import PREFIX, base, scratch

# Rows travel in small messages and data are loaded by each worker, so the object store holds next to nothing.
OBJECT_STORE_BYTES = 128 * 2**20
STORE_MORE = 2**20  # of its file, and of any log
# By default Ray starts a worker for each core and waits for them, before anybody knows how many are wanted.
SYSTEM = {"prestart_worker_first_driver": False, "enable_metrics_collection": False}
FILES = 1024  # that its processes may have to open at once
CGROUP = Path("/sys/fs/cgroup")
# Of a socket's name, with what Ray puts below its folder: session_2026-01-01_00-00-00_000000_4194304/sockets/...
LONGEST = 107 - len(f"/{PREFIX}000000/r/session_0000-00-00_00-00-00_000000_0000000/sockets/plasma_store")
# Read by Ray's processes below us: otherwise what a worker has started outlives it, and what stands for an agent the
# raylet, whose end it sees at its input.
BELOW = {"RAY_process_group_cleanup_enabled": "1", "RAY_enable_pipe_based_agent_to_parent_health_check": "1"}


def connect() -> AbstractContextManager[Connection]:
    """Start Ray on this machine; leaving the context stops it, and so does the end of this process, however it ends.

    Raises ClusterError at once where its files have no place or it could not open them, and on entering if it does not
    come up.
    """
    _allow(resource.RLIMIT_NOFILE, FILES, "a process may open {} files here, and Ray takes up to {}", "ulimit -n", 1)
    _allow(resource.RLIMIT_FSIZE, OBJECT_STORE_BYTES + STORE_MORE,
           "a file may have {} bytes here, and Ray's object store takes {}", "ulimit -f", 1024)
    return _connect(base(LONGEST))


def _allow(which: int, needed: int, said: str, command: str, unit: int) -> None:
    """Raise a limit of this process, and so of Ray's, to what is needed. Raises ClusterError where it may not be."""
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        fix = f"run `{command} {-(-needed // unit)}` first, or have the limit raised"
        raise ClusterError(f"{said.format(soft, needed)}; {fix}")
    resource.setrlimit(which, (needed, hard))


@contextmanager
def _connect(where: Path) -> Iterator[Connection]:
    # In a folder of ours: Ray opens its own to everybody.
    with scratch(where) as folder, _alone(), \
            session("this machine", address="local", num_cpus=cpus(), include_dashboard=False, _system_config=SYSTEM,
                    object_store_memory=OBJECT_STORE_BYTES, _temp_dir=str(folder / "r")) as connection:
        yield connection


@contextmanager
def _alone() -> Iterator[None]:
    """What makes a Ray that is started in this context ours alone."""
    if getattr(sys.modules.get("ray"), "is_initialized", bool)():  # which is refused, and that Ray keeps its token
        yield
        return
    # Loopback: Ray's own way for other systems, whose firewall would ask. Its processes inherit the token.
    variables = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token",
                 "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    imported = "ray" in sys.modules
    import ray  # as a whole first: another thread may be at it too

    raylet: Any = ray._raylet
    services: Any = ray._private.services
    constants: Any = ray._private.ray_constants
    theirs, loopback = services.ConsolePopen, constants.ENABLE_RAY_CLUSTER

    class Popen(theirs):  # type: ignore[misc, valid-type]
        """A session of its own: Ctrl-C, a SIGTERM for the process group (`timeout` sends one) and a terminal that is
        closed are for the driver, which saves what is in training; Ray would end under it."""

        def __init__(self, command: list[str], *args: Any, env: dict[str, str], **options: Any) -> None:
            super().__init__(without_agents(command), *args, env={**env, **BELOW}, start_new_session=True, **options)

    if imported:  # it has read its variables already
        raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    services.ConsolePopen, constants.ENABLE_RAY_CLUSTER = Popen, False
    try:
        with without_services():
            yield
    finally:
        services.ConsolePopen, constants.ENABLE_RAY_CLUSTER = theirs, loopback
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        raylet.AuthenticationTokenLoader.instance().reset_cache()


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
