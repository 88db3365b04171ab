"""What a target gives: a live connection to Ray, or one line that says why not."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.errors import ClusterError
from cluster.scratch import scratch

# A head starts a process for each client. It forks while gRPC is at work in it, and now and then (on a busy machine,
# once in six) the child dies of that before it is anything.
STUMBLED = re.compile("Starting Ray client server failed|psutil.(Zombie|NoSuch)Process")
ATTEMPTS = 5
_COMPLAINT = re.compile(r"\[[-\d]+ [\d:,]+ [EFC] ")  # a line of Ray's logs: an error, a failed check
LOGS = "/tmp/ray/session_latest/logs"  # unless TMPDIR or RAY_TMPDIR move them


@dataclass(frozen=True)
class Connection:
    """A live connection. ``cpus`` and ``gpus`` are the cluster's totals when it was made; ``ours`` is one that was
    started for this process, on this machine alone."""

    target: str
    ours: bool
    nodes: int
    cpus: float
    gpus: float

    @classmethod
    def made(cls, target: str, ours: bool) -> Connection:
        """Describe the cluster this process has just joined."""
        import ray

        total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        alive = [node["Alive"] for node in ray.nodes()]  # type: ignore[no-untyped-call]
        return cls(target, ours, sum(alive), total.get("CPU", 0.0), total.get("GPU", 0.0))


@contextmanager
def session(target: str, **arguments: Any) -> Iterator[Connection]:
    """``ray.init(**arguments)`` without its noise. Leaving disconnects, and stops a Ray that was started by it.

    Raises ClusterError where Ray does not come up, or this process is connected already.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about future GPU masking
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no reports over the network about somebody's sweep
    import ray

    if ray.is_initialized():
        raise ClusterError("this process is already connected to Ray; run the sweep in a process of its own")
    try:
        try:
            _init(**arguments)
        except Exception as error:
            raise ClusterError(f"Ray on {target}: {one_line(error)}; {_logged(arguments.get('_temp_dir'))}") from error
        with _tune_in_a_client():
            yield Connection.made(target, arguments["address"] == "local")
    finally:
        ray.shutdown()


def _logged(folder: str | None) -> str:
    """The last complaints in the logs of a Ray whose files are in ``folder``, which goes with it; of another, where its
    logs are."""
    if folder is None:
        return f"its logs are in {LOGS}"
    complaints = []
    for name in ("gcs_server.out", "gcs_server.err", "raylet.out", "raylet.err"):
        with contextlib.suppress(OSError):
            lines = Path(folder, "session_latest", "logs", name).read_text(errors="replace").splitlines()
            complaints += [line for line in lines if _COMPLAINT.match(line) or (line and name.endswith(".err"))][-1:]
    return "its logs say nothing more" if not complaints else f"its logs end with: {one_line(' ... '.join(complaints))}"


@contextmanager
def _tune_in_a_client() -> Iterator[None]:
    """A client (``ray://``) is no node of the cluster, yet Tune asks its node where to put its own files."""
    import ray

    worker: Any = ray._private.worker
    if worker._global_node is not None:
        yield
        return
    with scratch() as folder:
        worker._global_node = SimpleNamespace(get_session_dir_path=lambda: str(folder))
        try:
            yield
        finally:
            worker._global_node = None  # which a client's shutdown expects


def one_line(error: object) -> str:
    """The start of Ray's message, which may go over many lines."""
    return " ".join(str(error).split())[:300]


def last_line(text: str) -> str:
    """The last line of a traceback, say, that is not empty."""
    return one_line(next(reversed(text.strip().splitlines()), "without a word"))


def _init(**arguments: Any) -> None:
    """Ray puts the working directory first on its workers' path: were it the user's, a folder of theirs called like
    one of our packages would hide it. So we connect from the folder that holds ours."""
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # pages for each worker that dies, and
    ray._private.worker._worker_logs_enabled = False  # a paragraph each: trials say why they failed
    here = os.getcwd()
    os.chdir(Path(__file__).parents[1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for left in reversed(range(ATTEMPTS)):
                try:
                    ray.init(logging_level=logging.ERROR, log_to_driver=False, **arguments)
                    break
                except ConnectionError as error:
                    if not left or not STUMBLED.search(str(error)):
                        raise
    finally:
        os.chdir(here)
