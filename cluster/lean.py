"""A Ray without the processes that a sweep on one machine asks nothing of: it is up in a second instead of in four, and
a worker in half a second less.

Of a head's services there are the dashboard, the autoscaler's monitor and the log monitor. Of a node's agents one
exports metrics and runs submitted jobs; the other makes environments for workers, and ours inherit the driver's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# A node must have agents, ends with them, and is their standard input. It gives them arguments of its own, and waits
# for those that are to find a port.
AGENT, PORT = "sh -c cat", "1"  # where nobody answers
NODE = {"dashboard_agent_command": AGENT, "runtime_env_agent_command": AGENT, "dashboard_agent_listen_port": PORT,
        "runtime_env_agent_port": PORT, "metrics_agent_port": PORT, "metrics_export_port": PORT}


def without_agents(command: list[str]) -> list[str]:
    """The command that starts a process of Ray, with agents that do nothing where it is a node's."""
    if not command[0].endswith("/raylet"):
        return command
    kept = [part for part in command if part.lstrip("-").partition("=")[0].replace("-", "_") not in NODE]
    # Some of them are unknown to earlier versions.
    return [*kept, *(f"--{name}={value}" for name, value in NODE.items()), f"--undefok={','.join(NODE)}"]


@contextmanager
def without_services() -> Iterator[None]:
    """A Ray that is started in this context has no services, and its workers no environment of their own, which `uv
    run`, a hook or a job would give them."""
    import ray

    node: Any = ray._private.node
    worker: Any = ray._private.worker
    theirs, environment = node.Node, worker._maybe_modify_runtime_env

    class Node(theirs):  # type: ignore[misc, valid-type]
        def __init__(self, ray_params: Any, *args: Any, **options: Any) -> None:
            ray_params.no_monitor, ray_params.include_log_monitor = True, False
            super().__init__(ray_params, *args, **options)

        def start_api_server(self, **options: Any) -> None:
            self._webui_url = ""

    node.Node, worker._maybe_modify_runtime_env = Node, lambda *anything: None
    try:
        yield
    finally:
        node.Node, worker._maybe_modify_runtime_env = theirs, environment
