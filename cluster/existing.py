"""A Ray cluster that is already up, by its address; the driver is this process.

``host:port`` is the address of its head, and this machine must be one of its nodes; ``ray://host:port`` connects as a
client from any machine; ``auto`` is the cluster that this process, a job or a node of it, belongs to.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.bundle import Bundle
from cluster.connection import ATTEMPTS, STUMBLED, Connection, session
from cluster.credentials import token_source
from cluster.errors import ClusterError
from cluster.scratch import scratch

REACH_SECONDS = 5.0
JOIN_SECONDS = 60.0
REHEARSAL = Path(__file__).with_name("rehearsal.py")
CLIENT = "ray://"
ADDRESS = re.compile(rf"({CLIENT})?(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{{1,5}})|auto")
REFUSED = re.compile("unauthenticated|missing authentication token", re.IGNORECASE)
OURS = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it where this process is the entrypoint of a job


@contextmanager
def connect(address: str, bundle: Bundle) -> Iterator[Connection]:
    """Join the cluster at ``address`` and give its nodes the code in ``bundle``; leaving the context only disconnects.

    Raises ClusterError where the address is not one, nobody answers there, the token is missing or wrong, or the
    cluster runs another version of Ray or Python.
    """
    _reach(address)
    token = token_source()
    if "RAY_AUTH_MODE" not in os.environ:
        if "ray" in sys.modules:
            raise ClusterError("Ray was imported before it could be told to use a token: set RAY_AUTH_MODE=token")
        os.environ["RAY_AUTH_MODE"] = "token"
    _rehearse(address, token)
    with scratch() as folder:
        bundle.unpack(folder)
        # A job's workers have the job's code, which is this process's too; Ray takes no other.
        travels = {} if OURS in os.environ else {"runtime_env": {"working_dir": str(folder)}}
        with session(address, address=address, **travels) as connection:
            yield connection


def _reach(address: str) -> None:
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise ClusterError(f"--to {address!r}: expected the address of a Ray head, host:port such as 10.0.0.1:6379, "
                           "ray://host:10001, or auto")
    if address == "auto":
        return
    if address.startswith(CLIENT) and importlib.util.find_spec("grpc") is None:
        raise ClusterError(f"--to {address}: Ray's client is not installed; pip install 'phasesweep[cluster]'")
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=REACH_SECONDS):
            pass
    except (OSError, OverflowError, UnicodeError) as error:
        raise ClusterError(f"--to {address}: nobody answers there ({error}); start a head with `ray start --head` or "
                           "check host, port and firewall") from None


def _rehearse(address: str, token: str) -> None:
    """Join in another process first. Ray tries a wrong token for 20 seconds, and anything that is not a head or not
    on our node for minutes, while its C++ side complains to the standard error: there it can be heard and stopped."""
    for _ in range(ATTEMPTS):
        wrong = _joins(address, token)
        if not STUMBLED.search(wrong):
            break
    if "mismatch" in wrong:
        wrong += "; install these versions here, or hand the sweep over with --to http://HEAD:8265"
    if wrong:
        raise ClusterError(f"--to {address}: {wrong}")


def _joins(address: str, token: str) -> str:
    """What was wrong; empty where nothing was."""
    environment = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "warning"}
    with subprocess.Popen([sys.executable, str(REHEARSAL), address], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        assert child.stdout is not None
        deadline = threading.Timer(JOIN_SECONDS, child.kill)
        deadline.start()
        try:
            last = ""
            for line in child.stdout:
                if REFUSED.search(line):
                    return f"the cluster refuses {token}; it takes the one its head was started with"
                last = line.strip() or last
            status = child.wait()
        finally:
            deadline.cancel()
            child.kill()
    if status < 0:
        node = "" if address.startswith(CLIENT) else (f", and is this machine one of its nodes (`ray start --address="
                                                      f"{address}` makes it one)")
        return f"no Ray head let us in within {JOIN_SECONDS:g} s; is that the head's port{node}?"
    return (last or f"exit {status}") if status else ""
