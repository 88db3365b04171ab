"""What a node says of itself, and when that is reason to refuse it."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import Bundle
from orchestrator import nodes
from orchestrator.commands import doctor
from orchestrator.nodes import Facts, Needs, Node

CODE = "0123456789abcdef"
TORCH, RAY = {"torch": "torch>=2.6"}, {"ray": "ray>=2"}
FIT = Facts("box", "3.11.7", Needs({"torch": "2.13.0", "ray": "2.60.0"}), CODE, "", [])


def node(facts: Facts | str, **others: float) -> Node:
    return replace(Node("10.0.0.2", 4.0, 0.0, facts), **others)


def test_this_machine_can_run_trials() -> None:
    facts = nodes.facts(None, 0.0)
    assert facts.reason == "" and facts.needs.missing == facts.needs.old == {} and facts.gpus == []
    assert facts.code == Bundle.of({}).code and facts.reads is facts.writes is None
    assert nodes.unfit(node(facts), facts.code) is None


@pytest.mark.parametrize(("facts", "expected"), [
    ("The actor died", r"node 10\.0\.0\.2 does not answer: The actor died"),
    (replace(FIT, reason="ModuleNotFoundError: No module named 'torch'", needs=Needs(missing=TORCH | RAY)),
     r"\(Python 3\.11\.7\) cannot run trials: .* 'torch'; pip install 'torch>=2\.6' 'ray>=2' there"),
    (replace(FIT, needs=Needs(old=TORCH)), r"libraries that are too old; pip install --upgrade 'torch>=2\.6'"),
    (replace(FIT, code="other"), r"runs another phasesweep than this one"),
])
def test_why_a_node_is_refused(facts: Facts | str, expected: str) -> None:
    wrong = nodes.unfit(node(facts), CODE)
    assert wrong is not None and re.search(expected, wrong) and "\n" not in wrong


def test_what_is_missing_or_too_old_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "duckdb":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.9.0" if name == "torch" else real(name)

    monkeypatch.setattr(nodes, "version", version)
    found = nodes.needs()
    assert list(found.missing) == ["duckdb"] and found.missing["duckdb"].startswith("duckdb")
    assert found.old == TORCH and "ray" in found.found


def test_a_probe_is_read_and_written_and_leaves_nothing(tmp_path: Path) -> None:
    results = tmp_path / "not" / "there" / "yet"
    with nodes._probe(str(results)) as probe:
        assert probe is not None and Path(probe[0]) == tmp_path
        facts = nodes.facts(probe, 0.0)
        assert facts.reads is not None and facts.writes is not None and facts.reads > 0 < facts.writes
        unseen = nodes.facts((str(tmp_path / "elsewhere"), probe[1]), 0.0)
        assert unseen.reads is unseen.writes is None
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_which_way_rows_and_checkpoints_take() -> None:
    seen, unseen = replace(FIT, reads=100.0, writes=50.0), replace(FIT, reads=None)
    shared = doctor._storage("10.0.0.1:6379", "results", [node(seen), node(replace(seen, reads=80.0))])
    assert "every node sees it (80 MiB/s read, 50 written" in shared.what
    split = doctor._storage("10.0.0.1:6379", "results", [node(seen), node(unseen)])
    assert "1 of 2 nodes do not see it, so this node reads and writes" in split.what and split.ok
    client = doctor._storage("ray://10.0.0.1:10001", "results", [node(seen), node(unseen)])
    assert "1 of 2 nodes do not see it, so a trial that is lost there begins anew" in client.what


def test_doctor_sees_clocks_that_differ_and_gpus_that_do_not_work() -> None:
    assert all(finding.ok for finding in doctor._node(node(FIT, skew=0.2), CODE))
    clock = [finding for finding in doctor._node(node(FIT, skew=-7.0, skew_error=0.1), CODE) if not finding.ok]
    assert len(clock) == 1 and "clock: -7.00 s to ours, within 0.10" in clock[0].what and "NTP" in clock[0].fix
    assert all(finding.ok for finding in doctor._node(node(FIT, skew=7.0, skew_error=3.0), CODE))
    gpu = [finding for finding in doctor._node(node(FIT, gpus=1.0), CODE) if not finding.ok]
    assert len(gpu) == 1 and "none that PyTorch can use" in gpu[0].what
    assert all(finding.ok for finding in doctor._node(node(replace(FIT, gpus=["A"]), gpus=1.0), CODE))
