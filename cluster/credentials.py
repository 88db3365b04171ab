"""The token that lets us into a cluster: where it is, and what it is. It is never printed, logged or put on a command
line."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.errors import ClusterError

MOST_BYTES = 1 << 16  # nobody's token is longer; the path may name anything


def wanted() -> bool:
    """Whether we are to show a token: RAY_AUTH_MODE says otherwise, if anything does."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"


def token_source() -> str:
    """Where our token for a cluster is: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token.

    Never the token itself, so that it can be printed. Raises ClusterError where there is no token.
    """
    return _find()[0]


def token() -> str | None:
    """The token itself; None where none is to be shown. Raises ClusterError where there is none."""
    return _find()[1]


def _find() -> tuple[str, str | None]:
    if not wanted():
        return f"a driver without a token (RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']})", None
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return "the token in RAY_AUTH_TOKEN", given
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES).strip()
    except OSError:
        content = b""
    if not content:
        raise ClusterError(f"no token to join a cluster with: put the cluster's into {file}, or set RAY_AUTH_TOKEN or "
                           "RAY_AUTH_TOKEN_PATH; a cluster that was started without one takes RAY_AUTH_MODE=disabled")
    return f"the token in {file}", content.decode(errors="replace")
