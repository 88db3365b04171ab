"""A head that stumbles over a client is asked again, and only then."""

from __future__ import annotations

import pytest
import ray

from cluster.connection import ATTEMPTS, Connection, session
from cluster.errors import ClusterError

FORK = "Starting Ray client server failed. See ray_client_server_23000.err for detailed logs."
HERE = Connection("ray://head:10001", ours=False, nodes=1, cpus=2.0, gpus=0.0)


class Head:
    """Lets a client in after so many failures; counts how often it was asked."""

    def __init__(self, failures: int, says: str) -> None:
        self.failures, self.says, self.asked = failures, says, 0

    def init(self, **_: object) -> None:
        self.asked += 1
        if self.asked <= self.failures:
            raise ConnectionError(self.says)


def knock(head: Head, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr(ray, "init", head.init)
    monkeypatch.setattr(Connection, "made", lambda target, ours: HERE)
    with session(HERE.target, address=HERE.target) as connection:
        return connection


@pytest.mark.parametrize("says", [FORK, "psutil.ZombieProcess: PID still exists but it's a zombie (pid=7)"])
def test_a_head_that_stumbles_is_asked_again(says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(ATTEMPTS - 1, says)
    assert knock(head, monkeypatch) is HERE
    assert head.asked == ATTEMPTS


@pytest.mark.parametrize(("says", "asked"), [(FORK, ATTEMPTS), ("ray client connection timeout", 1)])
def test_a_head_that_goes_on_refusing_is_one_line(says: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(ATTEMPTS + 1, says)
    with pytest.raises(ClusterError, match=says.split(".")[0]) as refusal:
        knock(head, monkeypatch)
    assert head.asked == asked
    assert "\n" not in str(refusal.value)
