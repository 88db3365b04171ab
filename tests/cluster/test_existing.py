"""A study on a cluster that is already up: the same tables as here, one line when we are not let in, and the cluster
is still there afterwards. The head is a real one, with token authentication."""

from __future__ import annotations

import importlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import heads
import pandas as pd
import processes
import pytest
from heads import Head, closed_port

import cluster
from cluster import ClusterError
from orchestrator.commands import doctor

STUDY = """
study: tiny
trial:
  task: digits
  model: {name: mlp, width: 16, depth: 1}
  optimizer: {name: sgd, lr: 0.05}
  budget: {epochs: 2}
space:
  batch_size: [32, 64]
  seed: {replicates: 2}
measure: {weights: log, eigenvalues: last}
"""
NOTHING = cluster.Bundle({})
TABLES = ("trials", "steps", "layers", "spectra")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with heads.started() as head:
        yield head


@pytest.fixture
def member(head: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    """The head, and its token around us."""
    head.let_in(monkeypatch)
    return head


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(STUDY)
    return path


@dataclass(frozen=True)
class Done:
    results: Path
    output: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def submitted(head: Head, study: Path, cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Done:
    results = tmp_path_factory.mktemp("submitted") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        head.let_in(monkeypatch)
        return Done(results, cli("submit", study, "--to", head.address, f"results={results}"))


@pytest.fixture(scope="module")
def client(head: Head, study: Path, cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """As from a machine that is no node: through the head's port for clients."""
    results = tmp_path_factory.mktemp("client") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        head.let_in(monkeypatch)
        return Done(results, cli("submit", study, "--to", head.client, f"results={results}"))


@pytest.fixture(scope="module")
def ran(study: Path, cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Done:
    results = tmp_path_factory.mktemp("ran") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
        return Done(results, cli("run", study, f"results={results}"))


@pytest.mark.parametrize("how", ["submitted", "client"])
def test_the_same_tables_as_on_this_machine(how: str, request: pytest.FixtureRequest, ran: Done, stored: Any) -> None:
    there, here = stored(request.getfixturevalue(how).results), stored(ran.results)
    assert len(there["trials"]) == 4 and set(there["trials"]["status"]) == {"completed"}
    for name in TABLES:
        assert len(there[name]) > 0
        pd.testing.assert_frame_equal(there[name], here[name], check_exact=True)


@pytest.mark.parametrize("how", ["submitted", "client", "ran"])
def test_ray_says_nothing(how: str, request: pytest.FixtureRequest) -> None:
    done = request.getfixturevalue(how)
    assert done.output.stderr == ""
    said = done.output.stdout.replace(str(done.results), "RESULTS").replace(" · starting Ray\n", "\n")
    assert "tiny: 4 completed" in said.splitlines()
    for sign in ("ray", "warning", "pid=", "info", r"\d\d:\d\d:\d\d"):
        assert not re.search(rf"\b{sign}", said, re.IGNORECASE), said


def test_the_token_is_nowhere(submitted: Done, client: Done, head: Head) -> None:
    secret = head.token.encode()
    for done in (submitted, client):
        assert head.token not in done.output.stdout + done.output.stderr
    files = [path for root in (submitted.results.parent, client.results.parent, head.root / "ray")
             for path in root.rglob("*") if path.is_file()]
    assert any(path.suffix == ".parquet" for path in files) and any(path.name == "gcs_server.out" for path in files)
    assert [path for path in files if secret in path.read_bytes()] == []


def test_the_cluster_stays_up_also_after_an_error(member: Head) -> None:
    before = processes.below(member.process.pid)
    script = """if True:
        import sys
        import cluster
        for _ in range(2):
            try:
                with cluster.existing(sys.argv[1], cluster.Bundle.of({})) as connection:
                    print(connection.target, connection.nodes, connection.cpus)
                    raise ZeroDivisionError
            except ZeroDivisionError:
                import ray
                assert not ray.is_initialized()
    """
    done = subprocess.run([sys.executable, "-c", script, member.address], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == (f"{member.address} 1 2.0\n" * 2, "")
    assert member.process.poll() is None
    ends = re.compile("^ray::|--mode=specific-server")  # a worker, and the server of a client that left: by themselves
    assert [one.command for one in before if not one.alive and not ends.search(one.command)] == []


@pytest.mark.parametrize(("address", "token", "expected"), [
    ("closed", "right", r"--to 127\.0\.0\.1:\d+: nobody answers there \(.*refused\); start a head"),
    ("head", None, r"no token to join a cluster with: put the cluster's into \S+/missing, or set RAY_AUTH_TOKEN"),
    ("head", "wrong", r"--to \S+: the cluster refuses the token in \S+/wrong; it takes the one its head"),
    ("client", "wrong", r"--to ray://\S+: the cluster refuses the token in \S+/wrong; it takes the one its head"),
])
def test_refused_in_one_line_and_nothing_written(address: str, token: str | None, expected: str, member: Head,
                                                 study: Path, cli: Any, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    if token is None:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "missing"))
    elif token == "wrong":
        (study.parent / "wrong").write_text("0123456789abcdef" * 4)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(study.parent / "wrong"))
    to = {"head": member.address, "client": member.client, "closed": f"127.0.0.1:{closed_port()}"}[address]
    done = cli("submit", study, "--to", to, f"results={tmp_path / 'results'}", status=2)
    assert re.fullmatch(rf"phasesweep: {expected}[^\n]*\n", done.stderr)
    assert done.stdout == ""
    assert "0123456789abcdef" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_token_is_noticed_at_once(member: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)  # goes before the file
    began = time.monotonic()
    with pytest.raises(cluster.ClusterError, match=r"refuses the token in RAY_AUTH_TOKEN;"), \
            cluster.existing(member.address, NOTHING):
        pass
    assert time.monotonic() - began < 10  # Ray by itself tries for 20 s


def test_no_token_where_one_is_wanted(member: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(cluster.ClusterError, match=r"refuses a driver without a token \(RAY_AUTH_MODE=disabled\)"), \
            cluster.existing(member.address, NOTHING):
        pass


def test_another_version_of_ray(member: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import ray\nray.__version__ = '9.9.9'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(cluster.ClusterError) as caught, cluster.existing(member.address, NOTHING):
        pass
    assert re.fullmatch(r"--to \S+: Version mismatch: .* Ray: \d\S+ Python: .* Ray: 9\.9\.9 Python: \S+; "
                        r"install these versions here, or hand the sweep over with --to http://HEAD:8265",
                        str(caught.value))


def test_something_else_listens_there(member: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["cluster.existing"], "JOIN_SECONDS", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        with pytest.raises(cluster.ClusterError) as caught, cluster.existing(address, NOTHING):
            pass
    assert str(caught.value).startswith(f"--to {address}: no Ray head let us in within 1.5 s; is that the head's port")
    assert f"ray start --address={address}" in str(caught.value)


@pytest.mark.parametrize("address", ["", "localhost", "ray://localhost", "http://localhost:8265", "localhost:",
                                     "localhost:x", "localhost:123456", "a b:1", "::1:6379", "automatic"])
def test_not_an_address(address: str) -> None:
    with pytest.raises(cluster.ClusterError, match="expected the address of a Ray head, host:port"), \
            cluster.existing(address, NOTHING):
        pass


@pytest.mark.parametrize("address", ["no-such-host.invalid:6379", "a..b:6379", "127.0.0.1:99999"])
def test_an_address_that_leads_nowhere(address: str) -> None:
    with pytest.raises(cluster.ClusterError, match=f"^--to {re.escape(address)}: nobody answers there"), \
            cluster.existing(address, NOTHING):
        pass


def test_ray_imported_too_early_for_a_token(member: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setitem(sys.modules, "ray", sys)
    with pytest.raises(cluster.ClusterError, match="set RAY_AUTH_MODE=token"), \
            cluster.existing(member.address, NOTHING):
        pass


def test_where_the_token_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for content in (None, b"", b" \n"):  # no file, and files without a token
        if content is not None:
            (tmp_path / ".ray").mkdir(exist_ok=True)
            (tmp_path / ".ray" / "auth_token").write_bytes(content)
        with pytest.raises(cluster.ClusterError, match=f"put the cluster's into {tmp_path}/.ray/auth_token"):
            cluster.token_source()
    (tmp_path / ".ray" / "auth_token").write_bytes(b"\xffhome\n")
    assert cluster.token_source() == f"the token in {tmp_path}/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path))  # a folder
    with pytest.raises(cluster.ClusterError, match=f"put the cluster's into {tmp_path},"):
        cluster.token_source()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    assert cluster.token_source() == "the token in RAY_AUTH_TOKEN"
    monkeypatch.setenv("RAY_AUTH_MODE", "Disabled")
    assert cluster.token_source() == "a driver without a token (RAY_AUTH_MODE=Disabled)"


def test_doctor_looks_at_every_node(member: Head, cli: Any, tmp_path: Path) -> None:
    done = cli("doctor", "--to", member.address, f"results={tmp_path / 'results'}")
    assert done.stderr == ""
    findings = done.stdout.splitlines()
    assert all(line.startswith("ok  ") for line in findings)
    met, node, clock, storage = findings[-4:]
    assert f"{member.address} lets us in with the token in {member.root}/token: 1 node(s), 2 CPU, 0 GPU" in met
    assert re.fullmatch(r"ok  node \S+ \(\S+\) has 2 CPU, 0 GPU, Python \S+, torch \S+, ray \S+, and our code", node)
    assert re.fullmatch(r"ok  node \S+ clock: [+-]0\.\d\d s to ours, within \d\.\d\d", clock)
    assert f"writes them to {tmp_path}/results; every node sees it" in storage
    assert member.token not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_a_library_is_refused_by_name(member: Head, study: Path, cli: Any, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The node asks for a torch that nobody has: what travels says what is needed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\ntrue = metadata.requires\n"
        "metadata.requires = lambda name: ['torch>=99.0'] if name == 'phasesweep' else true(name)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # ours, not the node's
    done = cli("submit", study, "--to", member.address, f"results={tmp_path / 'results'}", status=2)
    assert re.fullmatch(r"phasesweep: --to \S+: node \S+ has libraries that are too old; pip install --upgrade "
                        r"'torch>=99\.0' there\n", done.stderr)
    assert not (tmp_path / "results").exists()


def test_doctor_that_is_not_let_in() -> None:
    finding, = doctor._cluster(f"127.0.0.1:{closed_port()}", "results")
    assert not finding.ok and "nobody answers there" in finding.what


@pytest.mark.parametrize(("failures", "joins"), [(0, True), (1, True), (4, True), (5, False)])
def test_a_head_that_stumbles_over_a_client_is_asked_again(
        failures: int, joins: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rehearsal.py").write_text(f"""
import pathlib, sys
times = pathlib.Path(__file__).with_name("times")
times.open("a").write("x")
if len(times.read_text()) <= {failures}:
    sys.exit("RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.")
""")
    existing = importlib.import_module("cluster.existing")  # whose name in the package is that of its function
    monkeypatch.setattr(existing, "REHEARSAL", tmp_path / "rehearsal.py")
    if joins:
        existing._rehearse("ray://head:10001", "a token")
    else:
        with pytest.raises(ClusterError, match=r"^--to ray://head:10001: RuntimeError: Starting Ray client server"):
            existing._rehearse("ray://head:10001", "a token")
    assert len((tmp_path / "times").read_text()) == min(failures + 1, 5)
