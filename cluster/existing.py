"""A Ray cluster that is already up, by its address; this process joins it as a driver."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.connection import ClusterError, Connection, init

TOKEN_FILE = Path.home() / ".ray" / "auth_token"
REACH_SECONDS = 5.0


@contextmanager
def connect(address: str) -> Iterator[Connection]:
    """Join the cluster at ``address`` (``host:port`` of its head); leaving the context only disconnects.

    Token authentication is on: the token comes from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or
    ~/.ray/auth_token. Raises ClusterError, in one line, where the address is not one, nobody answers there, or the
    token is missing.
    """
    _check_reachable(address)
    _check_token()
    import ray

    try:
        init(address=address)
    except Exception as error:
        message = " ".join(str(error).split())
        raise ClusterError(f"{address}: Ray refused the connection: {message[:300]}; is the token the cluster's, and is "
                           f"Ray {ray.__version__} what it runs?") from error
    try:
        yield Connection.made(address)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    match = re.fullmatch(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if match is None:
        raise ClusterError(f"--to {address!r}: expected the address of a Ray head, host:port, such as 10.0.0.1:6379")
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=REACH_SECONDS):
            pass
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--to {address}: nobody answers there ({error}); start a head with `ray start --head` or "
                           "check host, port and firewall") from None


def _check_token() -> None:
    """Without a token Ray's own error comes late and long."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", TOKEN_FILE))
    if not os.environ.get("RAY_AUTH_TOKEN") and not (file.is_file() and file.read_text().strip()):
        raise ClusterError(f"no token to join the cluster with: put the cluster's into {file}, or set RAY_AUTH_TOKEN or "
                           "RAY_AUTH_TOKEN_PATH")
