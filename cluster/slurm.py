"""A Slurm cluster: one allocation of several nodes, or an array of single nodes that join as they come free."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import commands
from cluster.commands import CONTROL, run
from cluster.errors import ClusterError
from cluster.job import Job, Place, State
from cluster.slurm_script import SCRIPT

POLL_SECONDS = 5.0  # between looks at the queue
STOPPED = (15, 130, 143)  # exit status of a driver that was asked to stop: by Ray's own hand, by ours, by none yet
STATES = {"PENDING": State.WAITING, "REQUEUED": State.WAITING, "REQUEUE_HOLD": State.WAITING,
          "CONFIGURING": State.WAITING, "COMPLETED": State.DONE, "CANCELLED": State.STOPPED}


@dataclass(frozen=True)
class Slurm:
    """Jobs by ``sbatch``. ``cpus``, ``gpus`` and ``memory`` are those of each node; ``setup`` is a line of shell that
    puts a Python with phasesweep's libraries on the path, that of this process if it is empty.

    Jobs are kept in ``folder``, which like the results must be on a disk that all nodes share. One allocation starts
    when all its nodes are free, and takes whole nodes; with ``array`` each starts by itself, and may be preempted
    without harm. One node, or an array, may share nodes with other jobs.
    """

    partition: str = ""
    account: str = ""
    nodes: int = 1
    cpus: int = 8
    gpus: int = 0
    memory: str = ""
    time: str = "04:00:00"
    array: bool = False
    requeue: bool = True
    setup: str = ""
    folder: str = "~/.phasesweep/jobs"

    def __post_init__(self) -> None:
        name, count = r"[\w.,@+:-]*", r"[1-9]\d{0,5}"
        commands.check(self, {
            "partition": (name, "the name of a partition (`sinfo` lists them)"),
            "account": (name, "the name of an account"),
            "nodes": (count, "a number of nodes, at least 1"),
            "cpus": (count, "a number of CPUs for each node, at least 1"),
            "gpus": (r"\d{1,4}", "a number of GPUs for each node"),
            "memory": (r"(\d+[KMGT]?)?", "memory for each node, such as 32G"),
            "time": (r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}", "a time limit, such as 04:00:00 or 2-12 (days-hours)"),
            "array": ("True|False", "true or false"),
            "requeue": ("True|False", "true or false"),
            "setup": (CONTROL, "one line of shell"),
            "folder": (f"(?!$){CONTROL}", "a folder that all nodes share"),
        })

    def place(self, name: str, results: str) -> Place:
        """A URI as it is; a path below the working directory, which all nodes must share."""
        commands.check_results(results)
        if "://" in results:
            return Place(results, "in the object store", fetched=False)
        return Place(os.path.abspath(os.path.expanduser(results)), "on a disk that all nodes must share", fetched=False)

    def look(self) -> str:
        """Its version."""
        run("squeue", "--me", "--noheader")
        return f"{run('sbatch', '--version').decode().strip()} answers"

    def text(self, job: Job) -> str:
        """The script that ``sbatch`` gets."""
        whole = self.nodes > 1 and not self.array
        options = {
            "job-name": f"ps-{commands.label(job.name)}", "partition": self.partition, "account": self.account,
            "nodes": self.nodes if whole else 1, "array": f"0-{self.nodes - 1}" if self.array else "",
            "ntasks-per-node": 1, "cpus-per-task": self.cpus, "gpus-per-node": self.gpus or "", "mem": self.memory,
            "time": self.time, "signal": "B:TERM@60", "open-mode": "append", "output": "output.log"}
        flags = ["requeue" if self.requeue else "no-requeue"]
        if whole:  # symmetric-run wants no other Ray of ours on its nodes, and at its end stops every one
            flags.append("exclusive")
        ray = [f"--num-cpus={self.cpus}", f"--num-gpus={self.gpus}", "--min-worker-port=0", "--max-worker-port=0",
               "--dashboard-agent-listen-port=0"]  # ports that no other Ray on a node has
        return "\n".join([
            "#!/bin/bash",
            *(f"#SBATCH --{key}={value}" for key, value in options.items() if value != ""),
            *(f"#SBATCH --{flag}" for flag in flags),
            self.setup or f"PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH",
            f"nodes={self.nodes if whole else 1} requeue={int(self.requeue)}",
            f"options=({' '.join(ray)})",
            f"driver=({commands.driver_command(job)})",
            SCRIPT])

    def submit(self, job: Job) -> str:
        """Write the job's folder and hand its script to ``sbatch``; returns Slurm's number of the job."""
        folder = self._jobs / f"{commands.label(job.name)}-{secrets.token_hex(4)}"
        commands.make_private(folder)
        try:
            job.bundle.unpack(folder / "code")
            commands.write_token(folder / "token")
            (folder / "job.sh").write_text(self.text(job))
            said = run("sbatch", "--parsable", f"--chdir={folder}", str(folder / "job.sh"),
                       hint="change it with --with partition=, account=, time= ...").decode().strip()
            number = said.splitlines()[-1].partition(";")[0] if said else ""
            if not number.isdecimal():
                raise ClusterError(f"sbatch answered {said!r:.200} instead of a job's number; look with `squeue --me`")
            (self._jobs / number).symlink_to(folder.name)
        except OSError as error:
            raise ClusterError(f"cannot write {folder}: {error.strerror}; free space, or choose --with folder=") \
                from None
        except ClusterError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return number

    def state(self, number: str) -> State:
        """By what the job has left in its folder, the queue, and accounting where there is any."""
        folder = self._folder(number)
        if folder is None:
            return State.UNKNOWN
        if (found := _status(folder)) is not None:
            return found
        for line in run("squeue", "--me", "--noheader", "--format=%i %T").decode().splitlines():
            element, _, word = line.strip().partition(" ")
            if re.fullmatch(rf"{number}(_0|_\[0\b.*)?", element):  # the first of an array is the head
                return STATES.get(word, State.RUNNING)
        if (found := _status(folder)) is not None:  # it has ended in the meantime
            return found
        if shutil.which("sacct"):
            try:
                said = run("sacct", "-X", "-n", "-P", "-o", "State", "-j", number).decode().split()
            except ClusterError:  # many sites keep no accounts
                said = []
            if said:
                return STATES.get(said[0].rstrip("+"), State.FAILED)
        return State.STOPPED if (folder / "cancelled").exists() else State.FAILED  # without a word

    def follow(self, number: str) -> Iterator[str]:
        """The lines of its output file, from the first on."""
        folder, seen, rest = self._known(number), 0, b""
        while True:
            final = self.state(number).final  # asked first, so that nothing written before the end is missed
            if (file := folder / "output.log").exists():
                with file.open("rb") as stream:
                    stream.seek(seen)
                    new = stream.read()
                seen += len(new)
                *complete, rest = (rest + new).split(b"\n")
                yield from (line.decode(errors="replace") for line in complete)
            if final:
                if rest:
                    yield rest.decode(errors="replace")
                return
            time.sleep(POLL_SECONDS)

    def cancel(self, number: str) -> None:
        """Those that wait leave the queue; those that run get SIGTERM in their script, which passes it on."""
        folder = self._known(number)
        if self.state(number).final:
            return
        (folder / "cancelled").touch()  # or it would queue again
        for how in (("--state=PENDING",), ("--signal=TERM", "--batch")):
            try:
                run("scancel", *how, number)
            except ClusterError:
                if not self.state(number).final:
                    raise

    def fetch(self, number: str, results: str, into: Path) -> int:
        """Nothing: results are on a disk that is shared, or in a store."""
        return 0

    @property
    def _jobs(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(self.folder)))

    def _folder(self, number: str) -> Path | None:
        link = self._jobs / number
        return link.resolve() if number.isdecimal() and link.is_dir() else None

    def _known(self, number: str) -> Path:
        folder = self._folder(number)
        if folder is None:
            raise ClusterError(f"there is no job {number!r:.40} in {self._jobs}; --with folder= says where it was "
                               "submitted to")
        return folder


def _status(folder: Path) -> State | None:
    """How a job ended that came to its end; None for one that did not, or not yet."""
    try:
        status = int((folder / "status").read_text())
    except (OSError, ValueError):  # being written, perhaps
        return None
    return State.DONE if status == 0 else State.STOPPED if status in STOPPED else State.FAILED
