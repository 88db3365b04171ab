"""Nodes that leave, and a cluster that goes away: who is to blame for a worker that is lost."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import driving
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from orchestrator import presence
from orchestrator.placement import Workers
from orchestrator.presence import Presence
from orchestrator.queue import Queue
from orchestrator.signals import Signals
from orchestrator.sweep import Sweep, _Leave
from orchestrator.worker import Job
from trials.measure import Measure
from trials.records import Rows, schemas
from trials.spec import TrialSpec, column_types, parse_trial


def trial() -> TrialSpec:
    return parse_trial({"task": "digits", "model": "mlp", "optimizer": "sgd", "budget": {"steps": 5}})


def job(folder: Path, lanes: int = 1, retries: int = 1, seconds: float = 0.0) -> Job:
    tables = schemas(column_types(trial().flat()), ["seed"])
    where = str(folder)
    return Job(Measure(), tables, ("seed",), 1.0, retries, lanes, 60.0, where, where, where, None, seconds)


class Nodes:
    """A cluster whose nodes are told."""

    def __init__(self, *alive: str) -> None:
        self.alive, self.lost, self.answers = frozenset(alive), False, True

    def look(self) -> bool:
        return self.answers


def sweep_of(specs: list[TrialSpec], given: Job, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> tuple[Sweep, Any]:
    """A sweep of these trials, one by one and without Ray, and what it has committed."""
    monkeypatch.setattr("orchestrator.sweep.Presence", lambda: nodes)
    rows: list[Any] = []
    queue = Queue(iter(specs), set(), lambda spec: 1e9, {"cpu": 1}, lambda spec: "", 1)

    def commit(some: Rows) -> None:
        rows.extend(some.tables["trials"].to_pylist())
    return Sweep(queue, given, cast(Workers, None), commit, lambda: None, print, Signals()), rows


def lose(sweep: Sweep, error: BaseException, seconds: float = 0.0) -> None:
    """Hand the next pack to a worker that is lost ``seconds`` later."""
    pack = sweep.queue.next_pack()
    assert pack is not None
    sweep.began(pack)
    since, alive = sweep._running[pack.number]
    sweep._running[pack.number] = since - seconds, alive
    sweep.ended(pack, error)
    sweep.flush()


def test_a_worker_that_dies_alone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, rows = sweep_of([trial()], job(tmp_path), Nodes("a"), monkeypatch)
    lose(sweep, ActorDiedError())
    assert not rows and not sweep.queue.finished
    lose(sweep, ActorDiedError())
    assert [(row["status"], row["attempts"]) for row in rows] == [("failed", 2)]
    assert rows[0]["reason"].startswith("WorkerLost: ")
    assert sweep.queue.finished


def test_one_whose_node_is_lost_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes("a")
    sweep, rows = sweep_of([trial()], job(tmp_path, retries=0), nodes, monkeypatch)
    for number in range(5):
        lose(sweep, ActorUnavailableError("Socket closed", None))
        nodes.alive = frozenset({"a", f"b{number}"})
        pack = sweep.queue.next_pack()
        assert pack is not None
        sweep.began(pack)
        nodes.alive = frozenset({"a"})
        sweep.ended(pack, ActorDiedError())
    assert not rows and not sweep.queue.finished
    lose(sweep, ActorDiedError())
    assert [row["attempts"] for row in rows] == [1]


def test_one_that_ran_past_its_limit_says_so_and_is_not_tried_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, rows = sweep_of([trial()], job(tmp_path, retries=5, seconds=60.0), Nodes("a"), monkeypatch)
    lose(sweep, ActorDiedError(), seconds=30.0)
    assert not rows
    lose(sweep, ActorDiedError(), seconds=66.0)
    assert [row["reason"] for row in rows] == ["took longer than resources.seconds: 60 s"]


def test_where_our_own_node_is_lost_nobody_is_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes("a")
    sweep, rows = sweep_of([trial()], job(tmp_path, retries=0), nodes, monkeypatch)
    nodes.lost = True
    with pytest.raises(_Leave):
        lose(sweep, ActorDiedError())
    sweep.flush()
    assert not rows


def test_a_silent_cluster_is_lost_and_a_paused_process_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(presence, "LEAVE_SECONDS", 0.5)
    monkeypatch.setattr(presence.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "me"))
    silent: list[bool] = []

    def nodes() -> list[dict[str, Any]]:
        if silent:
            raise ConnectionError("nobody there")
        return [{"NodeID": "me", "Alive": True, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port},
                {"NodeID": "other", "Alive": False}]
    monkeypatch.setattr(presence.ray, "nodes", nodes)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    stuck: list[bool] = []
    monkeypatch.setattr(presence, "_give_up", lambda: stuck.append(True))
    with Presence() as seen:  # our port cannot be reached, and never could
        assert seen.look() and seen.alive == {"me"} and not seen.lost
        silent.append(True)
        assert not seen.look() and not seen.lost  # one answer that does not come means nothing
        driving.wait(lambda: seen.lost, seconds=60.0)
        assert seen.lost and not stuck
        driving.wait(lambda: stuck, seconds=60.0)
        silent.clear()
        driving.wait(lambda: not seen.lost, seconds=60.0)
