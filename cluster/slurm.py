"""A Slurm cluster: one allocation of several nodes, or an array of single nodes that join as they come free."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import commands, slurm_offer, slurm_words
from cluster.commands import CONTROL, run
from cluster.connection import last_line
from cluster.errors import ClusterError
from cluster.job import Job, Place, State
from cluster.slurm_script import SCRIPT

POLL_SECONDS = 5.0  # between looks at the queue
STOPPED = (15, 130, 143)  # exit status of a driver that was asked to stop: by Ray's own hand, by ours, by none yet
OPTION = r"--[a-z][a-z-]*(=[\x21-\x7e]*)?"
SAY_SECONDS = 60.0  # and at least between two words on why a job waits
HOOKS = 'eval "$(conda shell.bash hook)"', "conda.sh", ".bashrc"  # one of them makes `conda activate` work in a script


@dataclass(frozen=True)
class Slurm:
    """Jobs by ``sbatch``. ``cpus`` (0: what nodes offer, 8 at most), ``gpus`` and ``memory`` are those of each node;
    ``time`` is what the partition gives, 4 hours at most, where nothing is said. ``setup`` is a line of shell that runs
    first, with the Python of this process on the path: it may put another one before it that has phasesweep's
    libraries. ``extra`` is more options for sbatch.

    Jobs are kept in ``folder``, which like the results must be on a disk that all nodes share. One allocation starts
    when all its nodes are free, and takes whole nodes; with ``array`` each starts by itself, and may be preempted
    without harm. One node, or an array, may share nodes with other jobs.
    """

    partition: str = ""
    account: str = ""
    nodes: int = 1
    cpus: int = 0
    gpus: int = 0
    gpu_type: str = ""
    memory: str = ""
    time: str = ""
    array: bool = False
    requeue: bool = True
    qos: str = ""
    constraint: str = ""
    nodelist: str = ""
    exclude: str = ""
    reservation: str = ""
    mail_user: str = ""
    mail_type: str = ""
    extra: str = ""
    setup: str = ""
    folder: str = "~/.phasesweep/jobs"

    def __post_init__(self) -> None:
        name, count, hosts = r"[\w.,@+:-]*", r"[1-9]\d{0,5}", r"[\w.,\[\]-]*"
        commands.check(self, {
            "partition": (name, "the name of a partition (`sinfo` lists them)"),
            "account": (name, "the name of an account"),
            "nodes": (count, "a number of nodes, at least 1"),
            "cpus": (r"\d{1,6}", "a number of CPUs for each node, or 0 for what they offer, 8 at most"),
            "gpus": (r"\d{1,4}", "a number of GPUs for each node"),
            "gpu_type": (r"[\w.-]*", "the name of a type of GPU, such as a100 (`sinfo -o %G` lists them)"),
            "memory": (r"(\d+[KMGT]?)?", "memory for each node, such as 32G"),
            "time": (r"|\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}", "a time limit, such as 04:00:00 or 2-12 (days-hours)"),
            "array": ("True|False", "true or false"),
            "requeue": ("True|False", "true or false"),
            "qos": (name, "the name of a quality of service"),
            "constraint": (r"[\w.,&|!()\[\]*-]*", "features of nodes, such as 'ib&haswell' (`sinfo -o %f` lists them)"),
            "nodelist": (hosts, "names of nodes, such as node[01-04]"),
            "exclude": (hosts, "names of nodes, such as node[01-04]"),
            "reservation": (name, "the name of a reservation"),
            "mail_user": (name, "an address"),
            "mail_type": (r"[A-Za-z0-9_,]*", "events, such as END,FAIL"),
            "extra": (rf"({OPTION}( {OPTION})*)?", "more options of sbatch, such as '--licenses=x --nice=100'"),
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
        """The script that ``sbatch`` gets; ``sinfo`` is asked for what is left open, where there is one."""
        return self._fitted()._text(job)

    def _fitted(self) -> Slurm:
        """With a number of CPUs and a time. Raises ClusterError for what the partition can never give."""
        offers = slurm_offer.offers()
        nodes = 1 if self.array else self.nodes
        cpus, time = slurm_offer.defaults(slurm_offer.asked(offers, self.partition), nodes)
        fitted = replace(self, cpus=self.cpus or cpus, time=self.time or time)
        slurm_offer.refuse(slurm_offer.Request(
            self.partition, nodes, fitted.cpus, self.memory, self.gpus, self.gpu_type, self.constraint, fitted.time),
            offers)
        return fitted

    def _text(self, job: Job) -> str:
        whole = self.nodes > 1 and not self.array
        count = self.gpus or int(bool(self.gpu_type))
        gpus = f"{self.gpu_type}:{count}" if self.gpu_type else count or ""
        options = {
            "job-name": f"ps-{commands.label(job.name)}", "partition": self.partition, "account": self.account,
            "nodes": self.nodes if whole else 1, "array": f"0-{self.nodes - 1}" if self.array else "",
            "ntasks-per-node": 1, "cpus-per-task": self.cpus, "gpus-per-node": gpus, "mem": self.memory,
            "time": self.time, "qos": self.qos, "constraint": self.constraint, "nodelist": self.nodelist,
            "exclude": self.exclude, "reservation": self.reservation, "mail-user": self.mail_user,
            "mail-type": self.mail_type or ("END,FAIL" if self.mail_user else ""),
            "signal": "B:TERM@60", "open-mode": "append", "output": "output.log"}
        flags = ["requeue" if self.requeue else "no-requeue"]
        if whole:  # symmetric-run wants no other Ray of ours on its nodes, and at its end stops every one
            flags.append("exclusive")
        ray = [f"--num-cpus={self.cpus}", f"--num-gpus={count}", "--min-worker-port=0", "--max-worker-port=0",
               "--dashboard-agent-listen-port=0"]  # ports that no other Ray on a node has
        return "\n".join([
            "#!/bin/bash",
            *(f"#SBATCH --{key}={value}" for key, value in options.items() if value != ""),
            *(f"#SBATCH {option}" for option in (*(f"--{flag}" for flag in flags), *self.extra.split())),
            f"PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH",
            *([self.setup] if self.setup else []),
            *(["# In a script `conda activate` works after: " + HOOKS[0]] if self._lacks_hook else []),
            f"nodes={self.nodes if whole else 1} requeue={int(self.requeue)}",
            f"options=({' '.join(ray)})",
            f"driver=({commands.driver_command(job)})",
            SCRIPT])

    def submit(self, job: Job) -> str:
        """Write the job's folder and hand its script to ``sbatch``; returns Slurm's number of the job."""
        text = self.text(job)
        folder = self._jobs / f"{commands.label(job.name)}-{secrets.token_hex(4)}"
        commands.make_private(folder)
        try:
            job.bundle.unpack(folder / "code")
            commands.write_token(folder / "token")
            (folder / "job.sh").write_text(text)
            said = run("sbatch", "--parsable", f"--chdir={folder}", str(folder / "job.sh"),
                       hint="change it with --with partition=, account=, qos=, time= ...").decode().strip()
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
        if (said := slurm_words.queued(number)) is not None:
            return said.state
        if (found := _status(folder)) is not None:  # it has ended in the meantime
            return found
        if (said := slurm_words.ended(number)) is not None:
            return said.state
        return State.STOPPED if (folder / "cancelled").exists() else State.FAILED  # without a word

    def why(self, number: str) -> str:
        """Of one that waits, Slurm's reason; of one that failed, how it ended and the last line that it wrote."""
        state, folder = self.state(number), self._folder(number)
        if folder is None or state not in (State.WAITING, State.FAILED):
            return ""
        if state is State.WAITING:
            said = slurm_words.queued(number)
            return said.waits if said else ""
        said = slurm_words.ended(number)
        log = folder / "output.log"
        last = last_line(log.read_text(errors="replace")) if log.exists() else "nothing"
        return f"{said.failed + '; ' if said else ''}{log} ends with: {last}"

    def follow(self, number: str) -> Iterator[str]:
        """The lines of its output file, from the first on."""
        folder, seen, rest = self._known(number), 0, b""
        told, since = "", -SAY_SECONDS
        while True:
            state = self.state(number)  # asked first, so that nothing written before the end is missed
            due = state is State.WAITING and time.monotonic() - since >= SAY_SECONDS
            if due and (why := self.why(number)) not in (told, ""):
                told, since = why, time.monotonic()
                yield f"waits in the queue: {why}"
            if (file := folder / "output.log").exists():
                with file.open("rb") as stream:
                    stream.seek(seen)
                    new = stream.read()
                seen += len(new)
                *complete, rest = (rest + new).split(b"\n")
                yield from (line.decode(errors="replace") for line in complete)
            if state.final:
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
    def _lacks_hook(self) -> bool:
        return "conda activate" in self.setup and not any(hook in self.setup for hook in HOOKS)

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
