"""Machines of a cloud, by Ray's cluster launcher: ``ray up`` rents them, and they cost money until ``ray down``."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster import commands, mirror
from cluster.commands import DRIVER, HOME, run
from cluster.connection import last_line
from cluster.errors import ClusterError
from cluster.job import Job, Place, State

POLL_SECONDS = 5.0
IDLE_MINUTES = 10  # after which the launcher gives back a machine that it need not keep
DISK_GIB = 200
JOBS = "~/.phasesweep/jobs"  # here: each cluster's description, and the token that lets into its Ray
AUTH = "/tmp/phasesweep-auth"  # there, on each machine
MARK = "phasesweep| "  # before each line that is ours: Ray's launcher and ssh print among them
REGIONS = {"aws": "us-west-2", "gcp": "us-west1", "azure": "westus2"}
MACHINES = {"aws": "m5.2xlarge", "gcp": "n2-standard-8", "azure": "Standard_D8s_v5"}
STATES = {"running": State.RUNNING, "0": State.DONE,  # then a driver that was asked to stop: see slurm.STOPPED
          "15": State.STOPPED, "130": State.STOPPED, "143": State.STOPPED}
TOKEN = f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={AUTH}/auth_token RAY_USAGE_STATS_ENABLED=0"

# On the head, in the job's folder. run.pid is there while the driver runs, status once it has ended. The other machines
# go with the driver; the head stays, for results may be on its disk.
SCRIPT = rf"""{DRIVER}
{TOKEN} PYTHONUNBUFFERED=1
cd "$(dirname "$0")" || exit 1
say() {{ sed -u 's/^/{MARK}/'; }}
busy() {{ [ -s run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null; }}
case $1 in
start)
    rm -rf code stop status run.pid
    python -m zipfile -e bundle.zip code || exit 1
    setsid nohup bash job.sh run >output.log 2>&1 </dev/null &
    until [ -e run.pid ] || [ -e status ]; do sleep 0.1; done;;
run)
    echo $$ >run.pid
    drive "${{driver[@]}}"
    echo $? >status
    rm -f run.pid
    (ray stop; ray down --yes --workers-only ~/ray_bootstrap_config.yaml) >down.log 2>&1 &;;
state)
    if [ -e status ]; then cat status; elif busy; then echo running; else echo lost; fi | say;;
follow)
    busy && ends=(--follow "--pid=$(cat run.pid)")
    tail --lines="+$2" "${{ends[@]}}" output.log | say;;
stop)
    stop;;
fetch)
    (cd code && python -c {shlex.quote(commands.ANSWER)} "$(cat ../ask/results)" <../ask/request.json) | say;;
esac
"""


@dataclass(frozen=True)
class Cloud:
    """A head and ``workers`` more machines of a ``provider``: aws, gcp or azure. ``machine`` and ``head_machine`` are
    types of the provider's, ``spot`` takes cheaper workers that may be lost at any time, ``project`` is the id that
    gcp wants. All run ``image``, Ray's own unless it is given, and install phasesweep's other needs in it.
    """

    provider: str
    region: str = ""
    machine: str = ""
    head_machine: str = ""
    workers: int = 2
    spot: bool = False
    project: str = ""
    image: str = ""

    def __post_init__(self) -> None:
        name = r"[A-Za-z0-9._-]*"
        commands.check(self, {
            "provider": ("aws|gcp|azure", "aws, gcp or azure"),
            "region": (name, f"a region, such as {REGIONS.get(self.provider)}"),
            "machine": (name, f"a type of machine, such as {MACHINES.get(self.provider)}"),
            "head_machine": (name, f"a type of machine, such as {MACHINES.get(self.provider)}"),
            "workers": (r"\d{1,4}", "a number of machines beside the head"),
            "spot": ("True|False", "true or false"),
            "project": (name if self.provider != "gcp" else r"[a-z][a-z0-9-]*", "the id of your project on gcp"),
            "image": (r"([\w.:/@-]+)?", "a container image, such as rayproject/ray:2.52.0-py311-gpu"),
        })

    def place(self, name: str, results: str) -> Place:
        """A URI as it is; a path is on the head's disk, a relative one below ``~/phasesweep``."""
        commands.check_results(results)
        if "://" in results:
            return Place(results, "in the object store", fetched=False)
        return Place(commands.on_head(results), "on the head's disk, which `ray down` deletes", fetched=True)

    def look(self) -> str:
        """The version of Ray's launcher; what the cloud says is heard when machines are rented."""
        return f"the launcher of {run('ray', '--version').decode().strip()} is here for {self.provider}"

    def text(self, job: Job) -> str:
        """The cluster's description for ``ray up``, and the script that its head gets beside the bundle."""
        return commands.as_yaml(self._cluster(job), {"job.sh": _script(job)})

    def submit(self, job: Job) -> str:
        """Rent the machines, or take those that this study has, and start the driver; takes some minutes."""
        number = _number(job.name)
        folder = _jobs() / number
        if (folder / "cluster.yaml").exists() and self.state(number) is State.RUNNING:
            raise ClusterError(f"{job.name} is at work on the cluster {number}; cancel it first")
        try:
            commands.make_private(folder)
            for name in ("auth", "sent", "ask"):
                (folder / name).mkdir(exist_ok=True)
            commands.write_token(folder / "auth" / "auth_token")
            # Containers have another user than ssh. Here nobody can look into the folder above.
            (folder / "auth" / "auth_token").chmod(0o644)
            (folder / "sent" / "bundle.zip").write_bytes(job.bundle.zipped)
            (folder / "sent" / "job.sh").write_text(_script(job))
            (folder / "cluster.yaml").write_text(commands.as_yaml(self._cluster(job)))
        except OSError as error:
            raise ClusterError(f"cannot write {folder}: {error.strerror}; free space there") from None
        hint = f"when you give up: {_down(number)}"
        run("ray", "up", "--yes", _description(number), timeout=None, hint=hint)
        run("ray", "rsync-up", _description(number), f"{folder}/sent/", f"{HOME}/{number}/", timeout=None, hint=hint)
        run(*_on_head(number, "start"), hint=hint)
        return number

    def state(self, number: str) -> State:
        """As the script on the head says; UNKNOWN where that has been taken down."""
        if not re.fullmatch(r"[a-z0-9-]+", number) or not (_jobs() / number / "cluster.yaml").exists():
            return State.UNKNOWN
        try:
            said = _ours(run(*_on_head(number, "state")).decode(errors="replace").splitlines())
        except ClusterError as error:
            if "not found" in str(error):
                return State.UNKNOWN
            raise
        return STATES.get(next(said, ""), State.FAILED)

    def why(self, number: str) -> str:
        """Of one that failed, the last line of its output."""
        if self.state(number) is not State.FAILED:
            return ""
        lines = _ours(commands.lines(*_on_head(number, "follow 1")))
        return f"its output ends with: {last_line(chr(10).join(lines))}"

    def follow(self, number: str) -> Iterator[str]:
        """The lines of its output from the first on; then how to stop paying."""
        shown = 0
        while True:
            state = self.state(number)
            if state is State.UNKNOWN:
                raise ClusterError(f"there is no cluster {number!r:.80}; it has been taken down, or was not made here")
            for line in _ours(commands.lines(*_on_head(number, f"follow {shown + 1}"))):
                shown += 1
                yield line
            if state.final:
                yield f"the head of {number} runs on and costs money; when you have its results: {_down(number)}"
                return
            time.sleep(POLL_SECONDS)

    def cancel(self, number: str) -> None:
        """SIGTERM to the driver; the machines stay."""
        if not self.state(number).final:
            run(*_on_head(number, "stop"))

    def fetch(self, number: str, results: str, into: Path) -> int:
        """What the head prints, among the launcher's own lines."""
        if self.state(number) is State.UNKNOWN:
            raise ClusterError(f"the cluster {number!r:.80} has been taken down, and its disk with it; submit again")
        ask_folder = _jobs() / number / "ask"

        def ask(request: mirror.Request) -> str:
            (ask_folder / "results").write_text(results)
            (ask_folder / "request.json").write_text(json.dumps(asdict(request)))
            run("ray", "rsync-up", _description(number), f"{ask_folder}/", f"{HOME}/{number}/ask/")
            return "\n".join(_ours(run(*_on_head(number, "fetch"), timeout=None).decode().splitlines()))

        return commands.bring(ask, into)

    def _cluster(self, job: Job) -> dict[str, Any]:
        machine = self.machine or MACHINES[self.provider]
        workers = {"node_config": self._machine(machine, self.spot), "resources": {}, "min_workers": self.workers,
                   "max_workers": self.workers}
        head = {"node_config": self._machine(self.head_machine or machine, False), "resources": {}}
        start = f"{TOKEN}; ulimit -n 65536; ray start --disable-usage-stats"
        return {
            "cluster_name": _number(job.name), "provider": self._provider(), "auth": {"ssh_user": "ubuntu"},
            "max_workers": self.workers, "idle_timeout_minutes": IDLE_MINUTES,
            "docker": {"image": self.image or commands.ray_image(False), "container_name": "phasesweep",
                       "pull_before_run": True},
            "initialization_commands": ["sudo usermod -aG docker $USER || true"],
            "head_node_type": "head", "available_node_types": {"head": head, "workers": workers},
            "file_mounts": {AUTH: str(_jobs() / _number(job.name) / "auth")},
            "setup_commands": [f"pip install {shlex.join(commands.requirements())}"],
            "head_start_ray_commands": ["ray stop", f"{start} --head --port=6379 --dashboard-host=127.0.0.1 "
                                                    "--autoscaling-config=~/ray_bootstrap_config.yaml"],
            "worker_start_ray_commands": ["ray stop", f"{start} --address=$RAY_HEAD_IP:6379"]}

    def _provider(self) -> dict[str, Any]:
        region = self.region or REGIONS[self.provider]
        if self.provider == "aws":
            return {"type": "aws", "region": region, "cache_stopped_nodes": False}
        if self.provider == "gcp":  # every region has a zone b
            return {"type": "gcp", "region": region, "availability_zone": f"{region}-b", "project_id": self.project}
        return {"type": "azure", "location": region, "resource_group": "phasesweep"}

    def _machine(self, kind: str, spot: bool) -> dict[str, Any]:
        if self.provider == "aws":
            return {"InstanceType": kind, **({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}),
                    "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": DISK_GIB}}]}
        if self.provider == "gcp":
            disk = {"diskSizeGb": DISK_GIB,
                    "sourceImage": "projects/deeplearning-platform-release/global/images/family/common-cpu"}
            return {"machineType": kind, **({"scheduling": [{"preemptible": True}]} if spot else {}),
                    "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}]}
        image = {"imagePublisher": "microsoft-dsvm", "imageOffer": "ubuntu-2204", "imageSku": "2204-gen2",
                 "imageVersion": "latest"}
        return {"azure_arm_parameters": {"vmSize": kind, **image, **({"priority": "Spot"} if spot else {})}}


def _script(job: Job) -> str:
    return f"#!/bin/bash\ndriver=({commands.driver_command(job)})\n{SCRIPT}"


def _number(name: str) -> str:
    """The cluster of a study, the same each time; studies whose names differ in signs only have their own."""
    return f"ps-{commands.label(name)}-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"


def _jobs() -> Path:
    return Path(os.path.expanduser(JOBS))


def _description(number: str) -> str:
    return str(_jobs() / number / "cluster.yaml")


def _down(number: str) -> str:
    return f"ray down --yes {shlex.quote(_description(number))}"


def _on_head(number: str, words: str) -> tuple[str, ...]:
    return "ray", "exec", _description(number), f"bash {HOME}/{number}/job.sh {words}"


def _ours(lines: Iterable[str]) -> Iterator[str]:
    """The lines that the script on the head has said, however they came among others."""
    return (line.rstrip("\r").partition(MARK)[2] for line in lines if MARK in line)
