"""What only Slurm has: its script under a Slurm that ends it, queues it again, or starts its nodes one by one. It is
really run, with programs in place of Slurm's and Ray's; see ``fakes``."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import driving
import fakes
import pytest

from cluster import ClusterError, State
from cluster.slurm import Slurm

until = partial(driving.wait, seconds=60.0)  # which anything may take on a busy machine


class World:
    """A Slurm without jobs yet."""

    def __init__(self, root: Path) -> None:
        self.fake = fakes.Fake.install("slurm", root / "fake")
        self.jobs = root / "jobs"

    def slurm(self, **options: Any) -> Slurm:
        return Slurm(setup=f"export PATH={self.fake.path}", folder=str(self.jobs), **options)

    def options(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.fake.state / "options.json").read_text())
        return found

    def terminate(self, element: str) -> None:
        """What Slurm does a minute before the time is over, by --signal=B:TERM@60."""
        status, pid = (self.fake.state / "queue" / element).read_text().split()
        assert status == "RUNNING"
        os.kill(int(pid), signal.SIGTERM)

    def folder(self, number: str) -> Path:
        return (self.jobs / number).resolve()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path)
    monkeypatch.setenv("PATH", world.fake.path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("cluster.slurm.POLL_SECONDS", 0.1)
    with fakes.short_temporary_folder() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield world


def output(folder: Path, name: str = "output.log") -> str:
    file = folder / name
    return file.read_text() if file.exists() else ""


def test_an_allocation_runs_ray_on_all_its_nodes(world: World) -> None:
    slurm = world.slurm(nodes=3, cpus=4, gpus=2, memory="16G", partition="long", account="us", time="2-00")
    number = slurm.submit(fakes.job("0"))
    lines = list(slurm.follow(number))
    assert slurm.state(number) is State.DONE
    assert world.options() == {
        "job-name": "ps-tiny", "partition": "long", "account": "us", "nodes": "3", "ntasks-per-node": "1",
        "cpus-per-task": "4", "gpus-per-node": "2", "mem": "16G", "time": "2-00", "signal": "B:TERM@60",
        "open-mode": "append", "output": "output.log", "requeue": "", "exclusive": ""}
    started = [call for call in world.fake.calls if call[0] == "ray"]
    assert len(started) == 3
    address = started[0][3]
    assert re.fullmatch(r"[\d.]+:(2\d|3[01])\d{3}", address) and f"at {address}" in lines
    for call in started:
        words = shlex.join(call)
        assert words.startswith(f"ray symmetric-run --address {address} --min-nodes 3 --num-cpus=4 --num-gpus=2 ")
        assert words.endswith(" -- bash job.sh driver") and words.count(" -- ") == 1
    assert lines.count("mode token True") == 1


def test_ray_takes_the_options_that_it_gets(world: World) -> None:
    """As ``ray start`` of the version that is here parses them."""
    from click.testing import CliRunner
    from ray.scripts.scripts import start

    number = world.slurm(array=True, nodes=2).submit(fakes.job("0"))
    until(lambda: (world.folder(number) / "status").exists())
    call = next(call for call in world.fake.calls if call[:3] == ["ray", "start", "--head"])
    parsed = start.make_context("start", call[2:])
    assert (parsed.params["head"], parsed.params["block"], parsed.params["include_dashboard"]) == (True, True, False)
    assert parsed.params["num_cpus"] == 8 and int(parsed.params["ray_client_server_port"]) > 20000
    assert CliRunner().invoke(start, ["--no-such-option"]).exit_code == 2


def test_one_node_shares_it_with_other_jobs(world: World) -> None:
    """symmetric-run would refuse a node that has a Ray of ours, and stop that one in the end."""
    number = world.slurm().submit(fakes.job("0"))
    until(lambda: not list((world.fake.state / "queue").iterdir()))
    start, = (shlex.join(call) for call in world.fake.calls if call[0] == "ray")
    found = re.match(r"ray start --head --node-ip-address=(\S+) --port=(\d+) ", start)
    assert found is not None and f"\nat {found[1]}:{found[2]}\n" in output(world.folder(number))
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []
    assert "exclusive" not in world.options() and "gpus-per-node" not in world.options()
    assert not [call for call in world.fake.calls if call[:2] in (["ray", "symmetric-run"], ["ray", "stop"])]


def test_what_is_kept_of_a_job(world: World) -> None:
    number = world.slurm().submit(fakes.job("0"))
    folder = world.folder(number)
    assert folder.stat().st_mode & 0o777 == 0o700 and folder.parent == world.jobs
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert (folder / "code" / "study.yaml").read_text() == "0"
    assert not (folder / "code" / "token").exists()  # which travels to all nodes
    again = world.slurm().submit(fakes.job("0"))
    assert (world.folder(again) / "token").read_text() != (folder / "token").read_text()
    until(lambda: (world.folder(again) / "status").exists() and (folder / "status").exists())


@pytest.mark.parametrize("status", [15, 143])  # Ray's answer to SIGTERM, and that of a driver that only starts
def test_a_driver_that_was_stopped_before_it_trained(world: World, status: int) -> None:
    slurm = world.slurm(requeue=False)
    number = slurm.submit(fakes.job(str(status)))
    until(lambda: slurm.state(number).final)
    assert slurm.state(number) is State.STOPPED


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_whose_time_is_over_queues_again_and_goes_on(world: World, nodes: int) -> None:
    slurm = world.slurm(nodes=nodes)
    number = slurm.submit(fakes.job("wait"))
    folder = world.folder(number)
    until(lambda: "\nat " in output(folder))
    (folder / "code" / "study.yaml").write_text("0")  # for the second time
    world.terminate(number)
    until(lambda: (folder / "status").exists())
    assert ["scontrol", "requeue", number] in world.fake.calls
    lines = list(slurm.follow(number))
    assert slurm.state(number) is State.DONE
    said = [word for line in lines if (word := line.split()[0]) in ("arguments", "at", "saved")]  # bash may say more
    assert said == ["arguments", "at", "saved", "arguments", "at"]


def test_a_job_that_must_not_queue_again(world: World) -> None:
    slurm = world.slurm(requeue=False)
    number = slurm.submit(fakes.job("wait"))
    until(lambda: "\nat " in output(world.folder(number)))
    world.terminate(number)
    until(lambda: slurm.state(number).final)
    assert slurm.state(number) is State.STOPPED and "no-requeue" in world.options()
    assert not [call for call in world.fake.calls if call[0] == "scontrol"]


def test_a_job_that_may_not_queue_again(world: World) -> None:
    """Slurm refuses, and the job says how it ended."""
    (world.fake.programs / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    slurm = world.slurm()
    number = slurm.submit(fakes.job("143"))
    until(lambda: slurm.state(number).final)
    assert slurm.state(number) is State.STOPPED
    assert (world.folder(number) / "status").read_text() == "143\n"


def test_a_stop_that_comes_before_the_driver(world: World) -> None:
    (world.fake.state / "slow").touch()
    slurm = world.slurm(requeue=False)
    number = slurm.submit(fakes.job("wait"))
    until(lambda: [call for call in world.fake.calls if call[0] == "ray"])
    world.terminate(number)
    until(lambda: (world.folder(number) / "stop").exists())
    (world.fake.state / "slow").unlink()
    until(lambda: slurm.state(number).final)
    assert slurm.state(number) is State.STOPPED


def test_a_job_that_waits_is_cancelled(world: World) -> None:
    (world.fake.state / "full").touch()
    slurm = world.slurm(array=True, nodes=2)
    number = slurm.submit(fakes.job("wait"))
    assert slurm.state(number) is State.WAITING
    slurm.cancel(number)
    assert slurm.state(number) is State.STOPPED
    assert list(slurm.follow(number)) == []


def test_nodes_of_an_array_join_late_and_leave_with_the_head(world: World) -> None:
    slurm = world.slurm(array=True, nodes=3)
    number = slurm.submit(fakes.job("wait"))
    folder = world.folder(number)
    until(lambda: "\nat " in output(folder))
    assert world.options()["array"] == "0-2" and world.options()["nodes"] == "1"
    assert slurm.state(number) is State.RUNNING  # though two nodes of it wait
    joined = ["ray", "start", f"--address={(folder / 'address').read_text().strip()}", "--block"]
    assert not [call for call in world.fake.calls if call[:4] == joined]
    (world.fake.state / "free").touch()
    until(lambda: len([call for call in world.fake.calls if call[:4] == joined]) == 2)
    assert "Ray runtime" not in output(folder)  # each has a log of its own
    slurm.cancel(number)
    until(lambda: not list((world.fake.state / "queue").iterdir()))
    assert slurm.state(number) is State.STOPPED and "saved" in output(folder)
    assert not [call for call in world.fake.calls if call[0] == "scontrol"]


def test_a_node_of_an_array_that_is_cut_short_queues_again(world: World) -> None:
    (world.fake.state / "free").touch()
    slurm = world.slurm(array=True, nodes=2)
    number = slurm.submit(fakes.job("wait"))
    folder = world.folder(number)
    until(lambda: "started" in output(folder, "node-1.log"))
    world.terminate(f"{number}_1")
    until(lambda: output(folder, "node-1.log").count("started") == 2)
    again = [call for call in world.fake.calls if call[0] == "scontrol"]
    assert again == [["scontrol", "requeue", str(int(number) + 1)]]
    assert slurm.state(number) is State.RUNNING and "saved" not in output(folder)
    slurm.cancel(number)
    until(lambda: not list((world.fake.state / "queue").iterdir()))


def test_a_head_that_ends_takes_those_that_wait_from_the_queue(world: World) -> None:
    slurm = world.slurm(array=True, nodes=3)
    number = slurm.submit(fakes.job("0"))
    until(lambda: not list((world.fake.state / "queue").iterdir()))
    assert slurm.state(number) is State.DONE
    assert ["scancel", "--state=PENDING", number] in world.fake.calls


def test_a_ray_that_does_not_start(world: World) -> None:
    (world.fake.state / "no ray").touch()
    slurm = world.slurm()
    number = slurm.submit(fakes.job("0"))
    assert "this Ray does not start" in list(slurm.follow(number))
    assert slurm.state(number) is State.FAILED


@pytest.mark.parametrize(("says", "expected"), [
    (None, State.FAILED), ("COMPLETED|0:0\n", State.DONE), ("CANCELLED by 17|0:15\n", State.STOPPED),
    ("", State.FAILED), ("TIMEOUT|0:0\nCOMPLETED|0:0\n", State.FAILED), ("OUT_OF_MEMORY|0:125\n", State.FAILED),
    ("REQUEUED|0:0\n", State.WAITING),
])
def test_a_job_that_ended_without_a_word(world: World, says: str | None, expected: State) -> None:
    slurm = world.slurm()
    number = slurm.submit(fakes.job("wait"))
    until(lambda: "\nat " in output(world.folder(number)))
    pid = (world.folder(number) / "driver.pid").read_text()
    os.killpg(int((world.fake.state / "queue" / number).read_text().split()[1]), signal.SIGKILL)
    until(lambda: not list((world.fake.state / "queue").iterdir()))
    assert not Path(f"/proc/{pid}").exists()
    if says is not None:
        (world.fake.programs / "sacct").write_text(f"#!{sys.executable}\nprint({says!r}, end='')\n")
        (world.fake.programs / "sacct").chmod(0o755)
    assert slurm.state(number) is expected


def test_accounting_that_is_off_is_not_needed(world: World) -> None:
    (world.fake.programs / "sacct").write_text("#!/bin/sh\necho Slurm accounting storage is disabled >&2; exit 1\n")
    (world.fake.programs / "sacct").chmod(0o755)
    (world.jobs / "gone").mkdir(parents=True)
    (world.jobs / "77").symlink_to("gone")
    assert world.slurm().state("77") is State.FAILED


def test_a_job_that_slurm_refuses_leaves_nothing(world: World) -> None:
    world.fake.break_down("Invalid partition name specified")
    with pytest.raises(ClusterError, match=r"^`sbatch --parsable` failed: .*Invalid partition.*; change it with"):
        world.slurm().submit(fakes.job("0"))
    assert list(world.jobs.iterdir()) == []


def test_a_folder_that_cannot_be_made(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=r"^cannot make .*/file/jobs/tiny-\w+: Not a directory"):
        Slurm(folder=str(tmp_path / "file" / "jobs")).submit(fakes.job("0"))


def test_results_are_where_the_submitter_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for results, there in (("results/tiny", f"{tmp_path}/results/tiny"), ("~/r", "/home/me/r"), ("/a/../b", "/b")):
        place = Slurm().place("tiny", results)
        assert (place.results, place.fetched) == (there, False)


def test_without_setup_it_is_this_python() -> None:
    line = next(line for line in Slurm().text(fakes.job("0")).splitlines() if line.startswith("PATH="))
    assert line == f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"


# As a Slurm 22.05 without accounting prints it; see test_real_slurm.
ENDED = "UserId=root(0) JobState={} Reason={} Dependency=(null) Requeue=1 Restarts=0 ExitCode={} TRES=cpu=1\n"


@pytest.mark.parametrize(("said", "expected"), [
    (("FAILED", "NonZeroExitCode", "3:0"), "FAILED, exit status 3; "),
    (("FAILED", "JobLaunchFailure", "0:9"), "FAILED, JobLaunchFailure, signal 9; "),
    (("FAILED", "JobLaunchFailure", "0:53"), "FAILED: the node cannot open the job's folder or its output.log there; "),
    (("OUT_OF_MEMORY", "OutOfMemory", "0:125"), "OUT_OF_MEMORY: it took more memory than it asked for; give more with"),
    (("TIMEOUT", "TimeLimit", "0:0"), "TIMEOUT: its time was over; give more with --with time="),
    (("NODE_FAIL", "None", "0:0"), "NODE_FAIL: a node of it failed; the same submit continues"),
])
def test_how_a_job_ended(world: World, said: tuple[str, str, str], expected: str) -> None:
    (world.jobs / "gone").mkdir(parents=True)
    (world.jobs / "77").symlink_to("gone")
    (world.jobs / "gone" / "output.log").write_text("one\nthe last\n\n")
    (world.fake.state / "ended").write_text(ENDED.format(*said))
    why = world.slurm().why("77")
    assert why.startswith(expected) and why.endswith("output.log ends with: the last")


def test_a_job_that_waits_says_why_when_that_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.fake.state / "full").touch()
    monkeypatch.setattr("cluster.slurm.SAY_SECONDS", 0.0)
    slurm = world.slurm()
    number = slurm.submit(fakes.job("0"))
    following = slurm.follow(number)
    assert next(following) == "waits in the queue: PENDING (Resources): it is next, when nodes come free"
    (world.fake.state / "reason").write_text("PartitionConfig")
    assert "--with cpus=, gpus=, memory=, nodes= or partition=" in next(following)
    (world.fake.state / "reason").write_text("QOSMaxCpuPerUserLimit")
    assert "(QOSMaxCpuPerUserLimit): a limit of its quality of service" in next(following)
    (world.fake.state / "free").touch()
    assert next(following).startswith("arguments ")
    list(following)


@pytest.mark.parametrize(("sinfo", "cpus", "time"), [
    ("main*|up|2:00:00|1|2|21694|gpu:tiny:1|loop,here\nshort|up|10:00|1|4|21694|gpu:tiny:1|here\n", 2, "02:00:00"),
    ("a*|up|infinite|3|4|1|(null)|(null)\na*|up|infinite|1|128|1|(null)|(null)\n", 8, "04:00:00"),
    ("a|up|1-00:00:00|3|4|1|(null)|(null)\n", 8, "04:00:00"), ("", 8, "04:00:00")])
def test_what_is_asked_for_where_nothing_is_said(world: World, sinfo: str, cpus: int, time: str) -> None:
    (world.fake.state / "sinfo").write_text(sinfo)
    text = world.slurm().text(fakes.job("0"))
    assert f"--cpus-per-task={cpus}\n" in text and f"--time={time}\n" in text


@pytest.mark.parametrize(("options", "says"), [
    ({"cpus": 65}, r"--with cpus=65: the default partition cannot give that; it has 2 nodes with 4 CPUs, 16G; 1 node "
                   r"with 64 CPUs, 250G, 4 GPUs \(a100\); --with partition=big can"),
    ({"cpus": 5}, None), ({"gpus": 4, "gpu_type": "a100"}, None), ({"gpus": 1, "gpu_type": "h100"}, r"gpu_type=h100"),
    ({"gpus": 5}, "gpus=5"),
    ({"memory": "200G"}, None), ({"memory": "300G"}, "memory=300G"), ({"nodes": 3}, None),
    ({"nodes": 2, "cpus": 8}, r"nodes=2: the default partition has not so many"), ({"nodes": 9, "array": True}, None),
    ({"constraint": "ib"}, None), ({"constraint": "ib&amd"}, None), ({"constraint": "amd"}, "constraint=amd"),
    ({"time": "3-0"}, r"time=3-0: the default partition gives a job at most 48:00:00; --with partition=big can"),
    ({"partition": "none"}, "there is no such partition; there is: main, big"), ({"partition": "main,big"}, None)])
def test_what_no_node_has_is_refused(world: World, options: dict[str, Any], says: str | None) -> None:
    (world.fake.state / "sinfo").write_text(
        "main*|up|2-00:00:00|2|4|16000|(null)|(null)\nmain*|up|2-00:00:00|1|64|256000|gpu:a100:4(S:0-1)|ib,gpu\n"
        "big|up|infinite|4|256|900000|gpu:8|ib\n")
    if says is None:
        assert world.slurm(**options).text(fakes.job("0"))
        return
    with pytest.raises(ClusterError, match=says):
        world.slurm(**options).submit(fakes.job("0"))
    assert not world.jobs.exists()


def test_more_options() -> None:
    slurm = Slurm(cpus=2, qos="q", constraint="ib&gpu", nodelist="n[01-04]", exclude="n02", reservation="r",
                  gpu_type="a100", mail_user="me@lab.edu", extra="--licenses=x --nice",
                  setup="module load x; conda activate y")
    text = slurm.text(fakes.job("0"))
    for line in ("qos=q", "constraint=ib&gpu", "nodelist=n[01-04]", "exclude=n02", "reservation=r",
                 "mail-user=me@lab.edu", "mail-type=END,FAIL", "gpus-per-node=a100:1", "licenses=x", "nice"):
        assert f"\n#SBATCH --{line}\n" in text
    path, setup, note = text.partition("\nPATH=")[2].splitlines()[:3]
    assert path.endswith(":$PATH") and setup == slurm.setup and "shell.bash hook" in note
    assert "--num-gpus=1" in text
    assert "shell.bash hook" not in Slurm(setup=". conda.sh; conda activate y").text(fakes.job("0"))
