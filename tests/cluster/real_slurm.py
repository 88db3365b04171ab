"""A Slurm of our own on this machine: munged, slurmctld and slurmd on loopback ports, all they keep in one folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import driving

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
ReturnToService=2
KillWait=5
MinJobAge=300
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 NodeHostname={host} CPUs=2 RealMemory={memory} Gres=gpu:tiny:1 Features=loop,here
PartitionName=main Default=YES Nodes={host} MaxTime=02:00:00
PartitionName=short Nodes={host} MaxTime=00:10:00
PartitionName=closed Nodes={host} State=DOWN
"""


@dataclass(frozen=True)
class Cluster:
    """``environment`` leads Slurm's programs here; ``folder`` has configuration, state and logs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *words: str) -> str:
        """What one of Slurm's programs prints."""
        done = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


def lacking() -> list[str]:
    """What is not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Start it, and stop what was started."""
    with tempfile.TemporaryDirectory(prefix="ps-slurm-", dir="/tmp") as name:
        folder = Path(name)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        (folder / "gres.conf").write_text("Name=gpu Type=tiny File=/dev/null\n")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        (folder / "slurm.conf").write_text(CONF.format(
            host=socket.gethostname(), controller=_free(), node=_free(), folder=folder, memory=memory * 9 // 10))
        cluster = Cluster(folder)
        commands = [
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
             f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log"],
            ["slurmctld", "-D", "-i", "-f", f"{folder}/slurm.conf"],
            ["slurmd", "-D", "-f", f"{folder}/slurm.conf"]]
        environment = {**os.environ, **cluster.environment, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        with contextlib.ExitStack() as stack, (folder / "daemons.log").open("wb") as log:
            for command in commands:
                daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
                stack.callback(_end, daemon)
                if command[0] == "munged":
                    driving.wait((folder / "munge.socket").exists, seconds=30)
            driving.wait(lambda: _idle(cluster), seconds=90)
            try:
                yield cluster
            finally:
                with contextlib.suppress(AssertionError):
                    cluster.ask("scancel", "--full", "--signal=KILL", "--user=root")
                    cluster.ask("scancel", "--user=root")


def _idle(cluster: Cluster) -> bool:
    try:
        return cluster.ask("sinfo", "--noheader", "--partition=main", "--format=%t").strip() == "idle"
    except AssertionError:
        time.sleep(0.2)
        return False


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
