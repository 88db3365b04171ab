"""A Ray of our own: it comes up, it leaves nothing running however the sweep ends, and it takes the cores we have."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import processes
import pytest

import cluster

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")

# Starts Ray with a worker in use; each line it reads lets it go on.
DRIVER = """
import os, sys
import cluster

def session(fails):
    before = os.getcwd()
    with cluster.local() as connection:
        import ray
        assert os.getcwd() == before
        print("begun", flush=True)
        sys.stdin.readline()
        pid = ray.get(ray.remote(lambda: os.getpid()).remote())
        try:
            with cluster.local():
                pass
        except cluster.ClusterError as error:
            print(error, flush=True)
        assert ray.is_initialized()
        print("up", connection.nodes, connection.cpus, pid, flush=True)
        sys.stdin.readline()
        if fails:
            raise ZeroDivisionError

for fails in (False, True):
    try:
        session(fails)
    except ZeroDivisionError:
        assert fails
    import ray
    assert not ray.is_initialized()
    print("left", flush=True)
    sys.stdin.readline()
"""
# What would give workers an environment of their own, which nobody makes: a job, and a hook, as `uv run` is one.
INHERITED = {"RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"env_vars": {"A": "1"}}}',
             "RAY_RUNTIME_ENV_HOOK": "no_such.hook"}
# All that a sweep uses of Ray, and what stands for a node's agents.
PARTS = ("gcs_server", "raylet", "ray::IDLE", "sh", "cat")


@contextmanager
def driver() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env={**os.environ, **INHERITED}) as process:
        started: list[processes.Process] = []
        try:
            yield process
        finally:
            started += processes.below(process.pid)
            process.kill()
            for one in started:
                one.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def come_up(process: subprocess.Popen[str]) -> list[processes.Process]:
    """Wait for Ray; everything it runs."""
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line == "begun\n", line or process.stderr.read()
    # No worker before one is wanted: the driver would wait for it.
    assert not [one.command for one in processes.below(process.pid) if one.command.startswith("ray::IDLE")]
    go_on(process)
    line = process.stdout.readline()
    assert "already connected to Ray" in line, line or process.stderr.read()
    word, nodes, cpus, worker = process.stdout.readline().split()
    assert (word, nodes, float(cpus)) == ("up", "1", cluster.local_cpus())
    running = processes.below(process.pid)
    found = {one.command.split(" ")[0].rpartition("/")[2] for one in running}
    assert {"gcs_server", "raylet"} <= found <= {*PARTS}, found
    assert int(worker) in [one.pid for one in running]
    return running


def test_leaving_stops_everything_also_after_an_error() -> None:
    with driver() as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in ("returns", "raises"):
            running = come_up(process)
            hosts = [host for pid in (process.pid, *(one.pid for one in running)) for host in processes.listens(pid)]
            assert len(hosts) > 4 and set(hosts) == {"127.0.0.1"}
            assert all(os.getsid(one.pid) != os.getsid(process.pid) for one in running)  # no signal of our terminal
            go_on(process)
            assert process.stdout.readline() == "left\n"
            assert processes.left_after(20, running) == []
            assert processes.below(process.pid) == []
            go_on(process)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_nothing_survives_a_driver_that_is_killed() -> None:
    with driver() as process:
        running = come_up(process)
        try:
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert processes.left_after(20, running) == []
        finally:
            for one in running:
                one.kill()


def test_a_ray_that_does_not_come_up_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    said: list[str] = []

    def init(_temp_dir: str, **arguments: object) -> None:
        logs = Path(_temp_dir, "session_latest", "logs")  # which go with the folder
        logs.mkdir(parents=True)
        (logs / "raylet.out").write_text("".join(said))
        raise RuntimeError("the first of\n\n  many lines " + "x" * 5000)

    monkeypatch.setattr(ray, "init", init)
    before = os.getcwd()
    at = "[2026-01-01 00:00:00,000"
    for line, told in (("", "its logs say nothing more"),
                       (f"{at} E 1 1] (raylet) a.cc:1: Check failed: shm\n{at} I 1 1] (raylet) a.cc:2: fine",
                        r"its logs end with: \[.* Check failed: shm")):
        said[:] = [line]
        with pytest.raises(cluster.ClusterError) as caught, cluster.local():
            pass
        assert re.fullmatch(r"Ray on this machine: the first of many lines x{100,300}; " + told, str(caught.value))
    assert os.getcwd() == before


@pytest.mark.parametrize(("limits", "now"), [((256, 4096), 1024), ((256, -1), 1024), ((2048, 4096), 2048),
                                            ((64, 512), None), ((2000, 2000), 2000)])
def test_it_may_open_enough_files(limits: tuple[int, int], now: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits if which == resource.RLIMIT_NOFILE else (-1, -1))
    monkeypatch.setattr(resource, "setrlimit", lambda which, to: set_to.append(to))
    if now is None:
        with pytest.raises(cluster.ClusterError, match=r"may open 64 files here, .* `ulimit -n 1024`"):
            cluster.local()
    else:
        cluster.local()
        assert set_to[-1] == (now, limits[1])


def test_its_object_store_must_fit_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(4 << 20, 8 << 20)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[0] if which == resource.RLIMIT_FSIZE else (-1, -1))
    with pytest.raises(cluster.ClusterError, match=r"have 4194304 bytes here, .* 135266304; run `ulimit -f 132096`"):
        cluster.local()
    set_to: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, to: set_to.append((which, to)))
    limits[0] = (4 << 20, resource.RLIM_INFINITY)
    cluster.local()
    assert set_to == [(resource.RLIMIT_FSIZE, (135266304, resource.RLIM_INFINITY))]


@pytest.mark.parametrize(("files", "expected"), [
    ({}, 8),
    ({"cpu.max": "max 100000\n"}, 8),
    ({"cpu.max": "300000 100000\n"}, 3),
    ({"cpu.max": "250000 100000\n"}, 2),
    ({"cpu.max": "50000 100000\n"}, 1),
    ({"cpu.max": "6400000 100000\n"}, 8),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
])
def test_cores_are_those_of_the_container(files: dict[str, str], expected: int, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(sys.modules["cluster.local"], "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cluster.local_cpus() == expected
