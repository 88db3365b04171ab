"""A Ray cluster that is already up, by its address; this process joins it as a driver."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.connection import ClusterError, Connection, session

REACH_SECONDS = 5.0
JOIN_SECONDS = 20.0
REHEARSAL = Path(__file__).with_name("rehearsal.py")


@contextmanager
def connect(address: str) -> Iterator[Connection]:
    """Join the cluster at ``address`` (``host:port`` of its head); leaving the context only disconnects.

    This machine must be one of the cluster's nodes. Raises ClusterError where the address is not one, nobody answers
    there, the token is missing or wrong, or the cluster runs another version of Ray or Python.
    """
    _reach(address)
    token = token_source()
    if "RAY_AUTH_MODE" not in os.environ:
        if "ray" in sys.modules:
            raise ClusterError("Ray was imported before it could be told to use a token: set RAY_AUTH_MODE=token")
        os.environ["RAY_AUTH_MODE"] = "token"
    _rehearse(address, token)
    with session(address, address=address) as connection:
        yield connection


def token_source() -> str:
    """Where our token for a cluster is: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token.

    Authentication is on unless RAY_AUTH_MODE says otherwise; never the token itself, so that it can be printed.

    Raises ClusterError where there is no token.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        return f"a driver without a token (RAY_AUTH_MODE={mode})"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the token in RAY_AUTH_TOKEN"
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        found = bool(file.read_bytes().strip())
    except OSError:
        found = False
    if not found:
        raise ClusterError(f"no token to join a cluster with: put the cluster's into {file}, or set RAY_AUTH_TOKEN or "
                           "RAY_AUTH_TOKEN_PATH; a cluster that was started without one takes RAY_AUTH_MODE=disabled")
    return f"the token in {file}"


def _reach(address: str) -> None:
    match = re.fullmatch(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if match is None:
        raise ClusterError(f"--to {address!r}: expected the address of a Ray head, host:port, such as 10.0.0.1:6379")
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=REACH_SECONDS):
            pass
    except (OSError, OverflowError, UnicodeError) as error:
        raise ClusterError(f"--to {address}: nobody answers there ({error}); start a head with `ray start --head` or "
                           "check host, port and firewall") from None


def _rehearse(address: str, token: str) -> None:
    """Join in another process first. Ray tries a wrong token for 20 seconds, and anything that is not a head or not
    on our node for minutes, while its C++ side complains to the standard error: there it can be heard and stopped."""
    environment = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "warning"}
    with subprocess.Popen([sys.executable, str(REHEARSAL), address], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        assert child.stdout is not None
        deadline = threading.Timer(JOIN_SECONDS, child.kill)
        deadline.start()
        try:
            last = ""
            for line in child.stdout:
                if "Unauthenticated" in line:
                    raise ClusterError(f"--to {address}: the cluster refuses {token}; it takes the one its head was "
                                       "started with")
                last = line.strip() or last
            status = child.wait()
        finally:
            deadline.cancel()
            child.kill()
    if status < 0:
        raise ClusterError(f"--to {address}: no Ray head let us in within {JOIN_SECONDS:g} s; is that the head's port, "
                           f"and is this machine one of its nodes (`ray start --address={address}` makes it one)?")
    if status > 0:
        raise ClusterError(f"--to {address}: {last}")
