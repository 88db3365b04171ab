"""What every target raises."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster cannot be reached or used. The message is one line with the fix."""
