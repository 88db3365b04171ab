"""Where packs go: which workers fit on which nodes, and a cluster whose nodes come and go under a sweep."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import Tables

from orchestrator.placement import Workers
from search_spaces import load_study
from trials.errors import UserError

ROUNDING = 1e-6  # by which a trial's numbers, in float64, may depend on its pack

STUDY = """
study: nodes
question: Does it matter which nodes there were?
trial:
  task: digits
  model: {name: mlp, width: 16, depth: 1}
  optimizer: {name: sgd, lr: 0.05}
  budget: {epochs: 2}
  precision: float64
space:
  batch_size: [8, 16]
  seed: {replicates: 24}
measure: {weights: last, changes: none, eigenvalues: none}
pack: 2
device: cpu
"""

Cluster = list[dict[str, Any]]


def node(name: str, cpu: float = 0.0, gpu: float = 0.0, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cpu, "GPU": gpu, "memory": 1e9}
    return {"NodeID": name, "Alive": alive, "Resources": {key: value for key, value in resources.items() if value}}


def written(folder: Path) -> Path:
    path = folder / "nodes.yaml"
    path.write_text(STUDY)
    return path


def workers(folder: Path, nodes: Cluster, monkeypatch: pytest.MonkeyPatch, *wishes: str) -> Workers:
    """Of the study with these wishes, on these nodes."""
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    return Workers(load_study(str(written(folder)), wishes))


BOTH = [node("g", cpu=8, gpu=2), node("a", cpu=16), node("b", cpu=4), node("gone", cpu=64, gpu=8, alive=False)]


@pytest.mark.parametrize(("wishes", "nodes", "slots"), [
    (["device=auto"], BOTH, {"cuda": 8, "cpu": 20}),
    (["device=auto", "resources.cpu=3"], BOTH, {"cuda": 2, "cpu": 6}),  # 5 and 1: node by node
    (["device=auto", "resources.gpu=1"], BOTH, {"cuda": 2, "cpu": 20}),
    (["device=cuda"], BOTH, {"cuda": 8}),
    (["device=cpu"], BOTH, {"cpu": 28}),
    (["device=cpu", "resources.gpu=1"], BOTH, {"cpu": 28}),
    (["device=auto"], BOTH[:1], {"cuda": 8, "cpu": 0}),  # a workstation
    (["device=auto"], BOTH[1:], {"cuda": 0, "cpu": 20}),
    (["device=auto", "resources.cpu=0.1"], [node("a", cpu=1)], {"cuda": 0, "cpu": 10}),
    (["device=auto"], [], {"cuda": 0, "cpu": 0}),
])
def test_workers_are_counted_node_by_node(
        wishes: list[str], nodes: Cluster, slots: dict[str, int], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    found = workers(tmp_path, nodes, monkeypatch, *wishes)
    assert found.slots == slots and [*found.slots] == [*slots]
    found.check("it")


def test_they_are_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("a", cpu=2)]
    found = workers(tmp_path, nodes, monkeypatch, "device=auto")
    slots = found.slots
    nodes.append(node("g", cpu=4, gpu=1))
    found.count()
    assert found.slots is slots and slots == {"cuda": 4, "cpu": 2}
    nodes.clear()
    found.count()
    assert slots == {"cuda": 0, "cpu": 0}


@pytest.mark.parametrize(("wishes", "nodes", "said"), [
    (["device=cpu", "resources.cpu=4"], [node("a", cpu=2), node("b", cpu=3)],
     "a worker wants 4 CPU, but no node of it has that (the best has 3 CPU); lower resources.cpu"),
    (["device=auto", "resources.gpu=2"], [node("a", cpu=9, gpu=1), node("b", cpu=8, gpu=1)],
     "a worker wants 1 CPU and 2 GPU, but no node of it has that (the best has 9 CPU and 1 GPU); "
     "lower resources.cpu or resources.gpu, or change device"),
    (["device=auto", "resources.gpu=1"], [node("a", cpu=2)],
     "a worker wants 1 CPU and 1 GPU, but no node of it has that (the best has 2 CPU and 0 GPU); "
     "lower resources.cpu or resources.gpu, or change device"),
    (["device=cuda"], [node("a", cpu=2)],
     "a worker wants 1 CPU and 0.25 GPU, but no node of it has that (the best has 2 CPU and 0 GPU); "
     "lower resources.cpu or resources.gpu, or change device"),
])
def test_a_worker_that_no_node_can_hold_is_refused(
        wishes: list[str], nodes: Cluster, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as caught:
        workers(tmp_path, nodes, monkeypatch, *wishes).check("it")
    assert str(caught.value) == f"resources: {said}"


def test_nodes_with_nothing_to_give_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = workers(tmp_path, [node("head")], monkeypatch, "device=auto", "resources.cpu=4")
    found.check("it")
    assert not any(found.slots.values())


def test_a_worker_on_a_cpu_keeps_off_nodes_with_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = workers(tmp_path, BOTH, monkeypatch, "device=auto")
    assert found.request("cuda").bundles == [{"CPU": 1.0, "GPU": 0.25}]
    assert found.request("cpu").bundles == [{"CPU": 1.0}]
    assert found.request("cpu")._bound.kwargs == {"bundle_label_selector": [{"ray.io/node-id": "!in(g)"}]}
    assert found.request("cpu") == found.request("cpu")  # Tune keeps a worker for packs that ask for the same
    assert found.request("cpu") != workers(tmp_path, BOTH, monkeypatch, "device=cpu").request("cpu")


# In a process of its own: a sweep on a head (with a GPU, so to say) and a node. No pack goes on before another node has
# come, has got two packs, and the first node is gone with the one it had.
NODES = """
import contextlib, json, os, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table, remove_placement_group
from rich.console import Console
from cluster import Connection
from orchestrator import run, sweep
from orchestrator.placement import Workers
from search_spaces import load_study

path, folder = sys.argv[1:]
gate, study = os.path.join(folder, "gate"), load_study(path)
small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 1, "num_gpus": 1})
first = cluster.add_node(num_cpus=1, **small)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
head = next(node["NodeID"] for node in ray.nodes() if "GPU" in node["Resources"])

groups = [Workers(load_study(path, ["device=auto"])).request("cpu").to_placement_group() for _ in range(2)]
ray.wait([group.ready() for group in groups], timeout=60)
tables = [placement_group_table(group) for group in groups]
said = {"groups": sorted(table["state"] for table in tables),
        "on head": sum(head in table["bundles_to_node_id"].values() for table in tables)}
for group in groups:
    remove_placement_group(group)

class Gated(sweep.Worker):
    def step(self):
        while not os.path.exists(gate):
            time.sleep(0.05)
        return super().step()

class Watched(sweep.Sweep):
    def run(self):
        self.most, self.lost, self.ended_packs, self.script = 0, 0, 0, self.come_and_go()
        super().run()
        said.update(most=self.most, lost=self.lost, packs=self.ended_packs)

    def come_and_go(self):
        while len(self._running) < 2:
            yield
        cluster.add_node(num_cpus=2, **small)
        while len(self._running) < 4:
            yield
        cluster.remove_node(first)
        while not self.lost:
            yield
        open(gate, "w").close()

    def beat(self):
        super().beat()
        next(self.script, None)

    def ended(self, pack, error=None):
        super().ended(pack, error)
        self.lost, self.ended_packs = self.lost + (error is not None), self.ended_packs + 1

class Harvest(sweep.Harvest):
    def on_step_end(self, iteration, trials, **info):
        super().on_step_end(iteration, trials, **info)
        self._sweep.most = max(self._sweep.most, len(trials))

def go(name):
    connection = contextlib.nullcontext(Connection.made("the test", False))
    outcome = run.run(study, os.path.join(folder, name), lambda: connection, Console(file=sys.stderr))
    return outcome.survey.finished

plain = sweep.Worker, sweep.Sweep, sweep.Harvest
sweep.Worker, sweep.Sweep, sweep.Harvest = Gated, Watched, Harvest
said["finished"] = go("disturbed")
sweep.Worker, sweep.Sweep, sweep.Harvest = plain
said["undisturbed"] = go("undisturbed")
print(json.dumps(said))
ray.shutdown()
cluster.shutdown()
"""


def test_nodes_come_and_go_under_a_sweep(stored: Tables, tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    child = subprocess.Popen([sys.executable, "-c", NODES, str(written(tmp_path)), str(tmp_path)], env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, errors = child.communicate(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):  # if it hangs, Ray would stay
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 0, errors[-3000:]
    said = json.loads(output.splitlines()[-1])
    assert (said["groups"], said["on head"]) == (["CREATED", "PENDING"], 0)  # one fits beside the GPU's node
    assert said["finished"] and said["undisturbed"]
    assert said["lost"] == 1  # with the node; that it was reached says that the late one had packs
    assert said["most"] <= 2 * 4 + 1 < said["packs"]  # what Tune knows of: running, next, and one that is over
    found, expected = stored(tmp_path / "disturbed"), stored(tmp_path / "undisturbed")
    assert len(found["trials"]) == 48 and set(found["trials"]["status"]) == {"completed"}
    for table in expected:
        pd.testing.assert_frame_equal(found[table], expected[table], rtol=ROUNDING)
