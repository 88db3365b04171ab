"""The target `slurm` on a real Slurm: what the fake one takes for granted, and what only a real one can say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import driving
import fakes
import pytest
import real_slurm as real

from cluster import ClusterError, State, slurm_offer, slurm_words
from cluster.slurm import Slurm

pytestmark = pytest.mark.slurm

# In place of Ray, where only Slurm is looked at; the last test has the real one.
RAY = """#!/bin/bash
echo "Ray runtime started."
trap exit TERM
while :; do sleep 0.1; done
"""
STUDY = """
study: tiny
question: Does a sweep come back from Slurm?
trial:
  task: {name: gaussian_regression, dim: 4, samples: 16}
  model: {name: mlp, depth: 0}
  optimizer: {name: sgd, lr: 0.01}
  budget: {steps: 2}
  batch_size: 4
space:
  lr: [0.01, 0.02]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[real.Cluster]:
    if lacking := real.lacking():
        pytest.skip(f"there is no {lacking[0]}: apt-get install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("starting a Slurm takes root")
    with real.running() as found:
        yield found


class World:
    """Slurm, a folder for jobs, and a stub of Ray."""

    def __init__(self, root: Path) -> None:
        self.jobs, self.programs = root / "jobs", root / "programs"
        self.programs.mkdir()
        (self.programs / "ray").write_text(RAY)
        (self.programs / "ray").chmod(0o755)

    def slurm(self, **options: object) -> Slurm:
        given = {"cpus": 1, "memory": "200M", "setup": f"export PATH={self.programs}:$PATH", "folder": str(self.jobs)}
        return Slurm(**{**given, **options})  # type: ignore[arg-type]

    def output(self, number: str) -> str:
        file = self.jobs / number / "output.log"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def world(cluster: real.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("cluster.slurm.POLL_SECONDS", 0.2)
    with fakes.short_temporary_folder() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield World(tmp_path)
    for line in cluster.ask("squeue", "--noheader", "--format=%A").split():
        cluster.ask("scancel", line)
    driving.wait(lambda: not cluster.ask("squeue", "--noheader"), seconds=60)


def until(slurm: Slurm, number: str, wanted: State) -> None:
    driving.wait(lambda: slurm.state(number) is wanted, seconds=120)


def test_a_job_runs_and_is_followed(world: World) -> None:
    slurm = world.slurm()
    assert slurm.look().startswith("slurm")
    number = slurm.submit(fakes.job("0"))
    lines = list(slurm.follow(number))
    assert slurm.state(number) is State.DONE and slurm.why(number) == ""
    assert "mode token True" in lines and any(line.startswith("at ") for line in lines)


def test_what_partitions_offer(world: World) -> None:
    main, short, closed = slurm_offer.offers()
    assert (main.partition, main.default, main.up, main.minutes, main.nodes) == ("main", True, True, 120, 1)
    assert main.cpus == 2 and main.memory > 1000 and main.gpus == {"tiny": 1} and main.features == {"loop", "here"}
    assert (short.minutes, closed.up, closed.minutes) == (10, False, None)
    text = Slurm().text(fakes.job("0"))
    assert "--cpus-per-task=2\n" in text and "--time=02:00:00\n" in text


@pytest.mark.parametrize(("options", "says"), [
    ({"cpus": 3}, r"--with cpus=3: the default partition cannot give that; it has 1 node with 2 CPUs, \d+G, 1 GPU"),
    ({"memory": "4T"}, r"--with memory=4T: the default partition cannot"),
    ({"gpus": 2}, r"--with gpus=2"), ({"gpu_type": "a100"}, r"--with gpu_type=a100"),
    ({"constraint": "ib"}, r"--with constraint=ib"), ({"nodes": 2}, r"--with nodes=2: the default .* not so many"),
    ({"partition": "short", "time": "1:00:00"}, r"--with time=1:00:00: partition short gives a job at most 00:10:00; "
                                                r"--with partition=main can"),
    ({"partition": "closed"}, r"partition closed is down; try again later"),
    ({"partition": "none"}, r"no such partition; there is: main, short, closed"),
])
def test_what_no_partition_gives_is_refused_first(world: World, options: dict[str, object], says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        world.slurm(**options).submit(fakes.job("0"))
    assert not world.jobs.exists()


@pytest.mark.parametrize("options", [
    {"qos": "high"}, {"account": "us"}, {"gpu_type": "tiny"}, {"constraint": "loop&here"}, {"mail_user": "a@b.c"},
    {"extra": "--nice=5 --comment=x"}])
def test_slurm_takes_the_options(world: World, options: dict[str, object]) -> None:
    """A site without accounting lets every account and quality of service pass."""
    slurm = world.slurm(**options)
    number = slurm.submit(fakes.job("0"))
    until(slurm, number, State.DONE)


@pytest.mark.parametrize(("options", "says"), [
    ({"reservation": "none"}, "reservation is invalid"), ({"nodelist": "nowhere"}, "Invalid node name"),
    ({"extra": "--no-such-option"}, "unrecognized option"), ({"mail_type": "NEVERMIND"}, "mail-type")])
def test_what_slurm_refuses_is_one_line(world: World, options: dict[str, object], says: str) -> None:
    refusal = rf"^`sbatch --parsable` failed: .*{says}.*; change it with --with"
    with pytest.raises(ClusterError, match=refusal) as caught:
        world.slurm(**options).submit(fakes.job("0"))
    assert "\n" not in str(caught.value)


def test_a_job_that_can_never_start_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where `sinfo` is not asked, or knows less than the scheduler."""
    monkeypatch.setattr(slurm_offer, "offers", list)
    slurm = world.slurm(cpus=8)
    number = slurm.submit(fakes.job("0"))
    driving.wait(lambda: "PartitionConfig" in slurm.why(number), seconds=60)
    following = slurm.follow(number)
    assert next(following).startswith("waits in the queue: PENDING (PartitionConfig): the partition has not so many")
    slurm.cancel(number)
    assert list(following) == [] and slurm.state(number) is State.STOPPED


def test_others_are_before_it(world: World) -> None:
    first, second = world.slurm(cpus=2), world.slurm(cpus=2)
    running = first.submit(fakes.job("wait"))
    driving.wait(lambda: "\nat " in world.output(running), seconds=60)
    waiting = second.submit(fakes.job("0"))
    driving.wait(lambda: "it is next, when nodes come free" in second.why(waiting), seconds=60)
    assert second.state(waiting) is State.WAITING
    first.cancel(running)
    until(first, running, State.STOPPED)
    assert "saved" in world.output(running)
    until(second, waiting, State.DONE)


def test_it_queues_again_when_its_time_is_over(world: World) -> None:
    """SIGTERM comes to the script alone, a minute before the end: here at once."""
    slurm = world.slurm(time="00:01:00")
    number = slurm.submit(fakes.job("wait"))
    driving.wait(lambda: "saved" in world.output(number), seconds=200)
    (world.jobs / number / "code" / "study.yaml").write_text("0")  # for the second time
    driving.wait(lambda: slurm.state(number).final or "BeginTime" in slurm.why(number), seconds=60)
    driving.wait(lambda: slurm.state(number) is State.DONE, seconds=240)
    assert world.output(number).count("\nat ") == 2


def test_an_array_starts_node_by_node(world: World) -> None:
    slurm = world.slurm(array=True, nodes=2)
    number = slurm.submit(fakes.job("wait"))
    driving.wait(lambda: (world.jobs / number / "node-1.log").exists() and "\nat " in world.output(number), seconds=90)
    assert slurm.state(number) is State.RUNNING
    slurm.cancel(number)
    until(slurm, number, State.STOPPED)
    assert "saved" in world.output(number)


def test_a_driver_that_fails(world: World) -> None:
    slurm = world.slurm()
    number = slurm.submit(fakes.job("3"))
    list(slurm.follow(number))
    assert slurm.state(number) is State.FAILED
    assert slurm.why(number).startswith("FAILED, exit status 3; ") and "output.log ends with: at " in slurm.why(number)


@pytest.mark.parametrize(("setup", "options", "says"), [
    ("kill -9 $$", {}, r"FAILED, JobLaunchFailure, signal 9|FAILED, .*signal 9"),
    ("python -c 'x = bytearray(600 << 20); import time; time.sleep(60)'", {}, r"exceeded.* memory limit|memory"),
    ("echo no module x >&2; exit 7", {}, r"FAILED, exit status 7; .*output.log ends with: no module x"),
    ("trap '' TERM; sleep 300", {"time": "00:01:00", "requeue": False}, r"^TIMEOUT: its time was over; give more"),
])
def test_how_a_job_ended(world: World, setup: str, options: dict[str, object], says: str) -> None:
    slurm = world.slurm(setup=setup, **options)
    number = slurm.submit(fakes.job("0"))
    driving.wait(lambda: slurm.state(number).final, seconds=240)


    assert slurm.state(number) is State.FAILED and re.search(says, slurm.why(number)), slurm.why(number)


def test_a_folder_that_the_node_does_not_see(world: World) -> None:
    slurm = world.slurm(extra="--begin=now+3")
    number = slurm.submit(fakes.job("0"))
    folder = (world.jobs / number).resolve()
    folder.rename(folder.with_name("elsewhere"))
    driving.wait(lambda: slurm_words.ended(number) is not None, seconds=60)
    said = slurm_words.ended(number)
    assert said is not None and "choose a disk that all nodes share with --with folder=" in said.failed


def test_a_study_from_submit_to_results(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TMPDIR")
    (tmp_path / "tiny.yaml").write_text(STUDY)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "submit", str(tmp_path / "tiny.yaml"), "--to", "slurm", "--with",
         f"folder={tmp_path / 'j'}", f"results={tmp_path / 'results'}"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tiny: 2 completed" in done.stdout and driving.committed(tmp_path / "results") == 2
    print(f"{time.monotonic() - began:.0f} s")
