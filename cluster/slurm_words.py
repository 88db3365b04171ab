"""What Slurm says of a job, and what that means: its state, why it waits, how it ended."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from cluster.commands import run
from cluster.errors import ClusterError
from cluster.job import State

STATES = {"PENDING": State.WAITING, "REQUEUED": State.WAITING, "REQUEUE_HOLD": State.WAITING,
          "REQUEUE_FED": State.WAITING, "SPECIAL_EXIT": State.WAITING, "CONFIGURING": State.WAITING,
          "COMPLETED": State.DONE, "CANCELLED": State.STOPPED}
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT"}
# By the beginning of Slurm's reason that a job waits for; the first that fits.
WAITS = {
    "PartitionConfig": "the partition has not so many nodes, or none with so many CPUs, GPUs or so much memory: change "
                       "--with cpus=, gpus=, memory=, nodes= or partition= (`sinfo` lists them)",
    "BadConstraints": "no node is like that: change --with constraint=, gpu_type=, nodelist= or exclude=",
    "PartitionTimeLimit": "the partition gives no job so much time: change --with time= or partition=",
    "PartitionNodeLimit": "the partition gives no job so many nodes: change --with nodes= or partition=",
    "PartitionDown": "the partition is down: change --with partition=, or wait",
    "PartitionInactive": "the partition starts no jobs now: change --with partition=, or wait",
    "Resources": "it is next, when nodes come free",
    "Priority": "other jobs are before it",
    "BeginTime": "it has just been queued again, and starts in a minute or two",
    "ReqNodeNotAvail": "nodes are down, drained or reserved, for maintenance perhaps: a shorter --with time= may fit "
                       "in before",
    "Nodes_required_for_job_are_DOWN": "nodes are down, drained or reserved: change --with partition=, or wait",
    "Reservation": "its reservation is not open: change --with reservation=, or wait",
    "InvalidAccount": "it may not use this account: change --with account=",
    "InvalidQOS": "it may not use this quality of service: change --with qos=",
    "QOS": "a limit of its quality of service: change --with qos=, nodes= or time=, or wait for your other jobs",
    "Assoc": "a limit of your account: change --with account=, nodes= or time=, or wait for your other jobs",
    "MaxMemPerLimit": "it asks for more memory than a job may: change --with memory=",
    "JobHeldUser": "it is held; `scontrol release` lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "launch_failed_requeued_held": "Slurm could not start it and holds it; `scontrol release` tries again",
    "JobArrayTaskLimit": "its array may not run more tasks at once",
    "Licenses": "its licences are in use",
    "Dependency": "another job has to end first",
}
HOW = {
    "OUT_OF_MEMORY": "it took more memory than it asked for; give more with --with memory=",
    "TIMEOUT": "its time was over; give more with --with time=, and the same submit continues",
    "DEADLINE": "it could not be done by its deadline",
    "NODE_FAIL": "a node of it failed; the same submit continues",
    "BOOT_FAIL": "its node did not start; the same submit tries again",
    "PREEMPTED": "another job took its place; the same submit continues",
}


@dataclass(frozen=True)
class Said:
    """Slurm's words for the state of a job and for the reason, and the exit status and signal of its script
    (``3:0``)."""

    word: str
    reason: str = ""
    status: str = ""

    @property
    def state(self) -> State:
        """What it means for us; a word that is of neither list is of a job that runs, or ends just now."""
        return STATES.get(self.word, State.FAILED if self.word in ENDED else State.RUNNING)

    @property
    def waits(self) -> str:
        """Why it waits; empty where Slurm has not looked yet."""
        if self.reason in ("", "None"):
            return ""
        reason = self.reason.replace(" ", "_")  # some are sentences, and written in both ways
        meaning = next((meaning for start, meaning in WAITS.items() if reason.startswith(start)), "")
        return f"{self.word} ({self.reason}){meaning and f': {meaning}'}"

    @property
    def failed(self) -> str:
        """How it ended, where that was not by itself."""
        status, _, signal = self.status.partition(":")
        if self.word in HOW:
            return f"{self.word}: {HOW[self.word]}"
        if (status, signal) == ("0", "53"):
            return (f"{self.word}: the node cannot open the job's folder or its output.log there; choose a disk that "
                    "all nodes share with --with folder=")
        how = f"signal {signal}" if signal not in ("", "0") else f"exit status {status}" if status else ""
        reason = self.reason if self.reason not in ("", "None", "NonZeroExitCode") else ""
        return ", ".join(filter(None, (self.word, reason, how)))


def queued(number: str) -> Said | None:
    """Of a job that is in the queue; of an array its first element, which is the head. None where there is none."""
    for line in run("squeue", "--me", "--noheader", "--format=%i|%T|%r").decode(errors="replace").splitlines():
        element, word, reason = (*line.strip().split("|", 2), "", "")[:3]
        if re.fullmatch(rf"{number}(_0|_\[0\b.*)?", element):
            return Said(word, reason)
    return None


def ended(number: str) -> Said | None:
    """Of a job that has left the queue: by accounting, and where a site keeps none by the controller, which forgets
    after some minutes. None where neither knows it."""
    for asked in (_accounted, _remembered):
        try:
            if (found := asked(number)) is not None:
                return found
        except ClusterError:  # many sites keep no accounts; nobody remembers for long
            continue
    return None


def _accounted(number: str) -> Said | None:
    if shutil.which("sacct") is None:
        return None
    said = run("sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", number).decode(errors="replace").splitlines()
    if not said:
        return None
    word, _, status = said[0].partition("|")
    return Said((word.split() or [""])[0].rstrip("+"), "", status)  # CANCELLED by 1000


def _remembered(number: str) -> Said | None:
    if shutil.which("scontrol") is None:
        return None
    for line in run("scontrol", "--oneliner", "show", "job", number).decode(errors="replace").splitlines():
        found = dict(word.partition("=")[::2] for word in line.split())
        if found.get("ArrayTaskId", "0") == "0" and found.get("JobState") in ENDED:
            return Said(found["JobState"], found.get("Reason", ""), found.get("ExitCode", ""))
    return None
