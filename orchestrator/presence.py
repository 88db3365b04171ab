"""A cluster that goes away, or some of its nodes."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

import ray

GONE = "the Ray cluster went away; what is committed stays, and the same command continues once it is up again"

LOOK_SECONDS = 2.0  # a cluster that is there answers within these
MISSES = 7  # looks in vain, in 28 s, are a cluster that is gone; after 60 s Ray's C++ side ends this process
LEAVE_SECONDS = 10.0  # whoever does not leave a cluster that is gone within these is in a call that will not return


class Presence:
    """Which nodes of the cluster are ``alive``, and whether it is ``lost`` to this process; in a ``with`` block it
    looks every few seconds, in threads of its own: a call to a cluster that is gone does not return. If it is lost and
    the block is not left, the process is ended: its main thread is in such a call, and cannot be woken.

    Our own node is looked at more closely. The cluster takes ten seconds to see that a node is dead, and then Ray's C++
    side ends the processes there, ours too.
    """

    def __init__(self) -> None:
        self._own = ray.get_runtime_context().get_node_id()
        self._reached = False  # whether our node's port ever was: that of a head behind ray:// may be closed to us
        self.alive = frozenset({self._own})
        self._answers = self._missed = 0  # looks in vain are counted, not timed: a process may be paused, and go on
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    @property
    def lost(self) -> bool:
        """Whether this process' node is dead, or nobody has answered for long."""
        return self._own not in self.alive or self._missed >= MISSES

    def look(self) -> bool:
        """Look now; returns whether there was an answer."""
        before = self._answers
        thread = threading.Thread(target=self._ask, daemon=True)
        thread.start()
        thread.join(LOOK_SECONDS)
        return self._answers > before

    def _ask(self) -> None:
        with contextlib.suppress(Exception):
            nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
            if self._own in nodes and not self._listens(nodes[self._own]):
                del nodes[self._own]
            self.alive = frozenset(nodes)
            self._answers += 1

    def _listens(self, node: Mapping[str, Any]) -> bool:
        """Whether somebody listens at a node's port, where that could be told before."""
        try:
            socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), LOOK_SECONDS).close()
            self._reached = True
        except OSError:
            return not self._reached
        return True

    def _keep(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._missed = 0 if self.look() else self._missed + 1
            if self.lost and not self._ended.wait(LEAVE_SECONDS):
                _give_up()


def _give_up() -> None:
    """The end that a ClusterError comes to."""
    print(f"phasesweep: {GONE}", file=sys.stderr, flush=True)
    os._exit(2)
