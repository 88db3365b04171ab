"""What the targets that take jobs share: running a program of somebody else's, such as sbatch, kubectl or ray, checking
what goes into its files, the script around our driver, and bringing results here."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from cluster import mirror
from cluster.connection import one_line
from cluster.errors import ClusterError

if TYPE_CHECKING:
    from cluster.job import Job

INSTALL = {
    "sbatch": "submit on a login node of the Slurm cluster",
    "squeue": "ask on a login node of the Slurm cluster",
    "scancel": "cancel on a login node of the Slurm cluster",
    "kubectl": "install kubectl, and choose your cluster with `kubectl config use-context`",
    "ray": "pip install 'ray[default]'",
}
HOME = "~/phasesweep"  # on a head: not a job's own folder, which Ray removes
CONTROL = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*"  # a pattern of text that stays on its line

# For `python -c`, with our code on its path and a results folder as argument: what `bring` asks for.
ANSWER = ("import json, pathlib, sys; from cluster import mirror; request = mirror.Request(**json.load(sys.stdin)); "
          "print(*mirror.lines(mirror.pack(pathlib.Path(sys.argv[1]).expanduser(), request)), sep='\\n')")

# The driver runs in `code`; its process id is in driver.pid while it runs. A stop that comes before it has started is
# not lost: either `stop` sees the process id or `drive` sees the file.
DRIVER = r"""
drive() {
    (cd code && exec "$@") &
    echo $! >driver.pid
    [ ! -e stop ] || kill -TERM $!
    wait $!
    set -- $?
    rm -f driver.pid
    return "$1"
}
stop() {
    : >stop
    [ ! -s driver.pid ] || kill -TERM "$(cat driver.pid)"
}
"""


def run(*command: str, given: str | bytes = "", timeout: float | None = 120, hint: str = "") -> bytes:
    """What an outside program prints, having read ``given``.

    Raises ClusterError, one line with ``hint`` in it, if it is not there, fails, or takes longer than ``timeout``
    seconds.
    """
    name = shlex.join(command[:2])
    given = given.encode() if isinstance(given, str) else given
    try:
        done = subprocess.run([program(command[0]), *command[1:]], input=given, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{name}` did not answer within {timeout:g} s; try again when it does") from None
    if done.returncode:
        said = (done.stdout.strip() + b" " + done.stderr.strip()).decode(errors="replace").strip()[-300:]
        raise ClusterError(f"`{name}` failed: {one_line(said) or f'exit status {done.returncode}'}"
                           f"{hint and f'; {hint}'}")
    return done.stdout


def lines(*command: str) -> Iterator[str]:
    """The lines that an outside program prints, as they come; how it ends does not matter. It is ended with us."""
    with subprocess.Popen([program(command[0]), *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, errors="replace") as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield line.rstrip("\r\n")
        finally:
            process.kill()


def program(name: str) -> str:
    """The path of an outside program; also one that was installed with us. Raises ClusterError if there is none."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise ClusterError(f"there is no {name} on this machine: {INSTALL[name]}")
    return found


def check(target: object, expected: Mapping[str, tuple[str, str]]) -> None:
    """Raise ClusterError for the first option of a target that is not as its pattern says (pattern, in words)."""
    for option, (pattern, words) in expected.items():
        value = getattr(target, option)
        if re.fullmatch(pattern, str(value), re.ASCII) is None:
            raise ClusterError(f"--with {option}={str(value)!r:.100}: expected {words}")


def check_results(results: str) -> None:
    """Raise ClusterError for a path that would not stay on its line, and for a URI with a key in it."""
    if re.fullmatch(CONTROL, results) is None or not results:
        raise ClusterError(f"results={results!r:.200}: expected a path or a URI of printable characters")
    shown, keys = re.subn("://[^/?#@:]*:[^?#]*@", "://***@", results)
    if keys:
        raise ClusterError(f"results={shown}: what is handed over can be read by others, so it may hold no key; leave "
                           "it out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a role) where it runs")


def on_head(results: str) -> str:
    """A path on the disk of a head elsewhere: a relative one is below HOME. Raises ClusterError if it leads out."""
    path = results if results[0] in "~/" else posixpath.join(HOME, posixpath.normpath(results))
    if ".." in path.split("/"):
        raise ClusterError(f"results={results}: leads out of {HOME} on the head; give a path below it, an absolute "
                           "one, or a URI")
    return path


def label(name: str) -> str:
    """A study's name as part of the other side's names: 24 letters, digits and hyphens at most."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:24].strip("-") or "study"


def driver_command(job: Job) -> str:
    """For the shell: the driver of a job, in the folder of its bundle."""
    return shlex.join(["python", "-m", "orchestrator.cli", *job.arguments])


def requirements() -> list[str]:
    """What phasesweep needs beside Ray, pinned to the versions that are here."""
    try:
        needs = requires("phasesweep") or []
    except PackageNotFoundError as error:
        raise ClusterError("phasesweep is not installed here, so what it needs is not known: pip install -e .") \
            from error
    names = [match[0] for need in needs if "extra ==" not in need and (match := re.match(r"[A-Za-z0-9._-]+", need))]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names if name != "ray"]  # +cpu is torch's own


def ray_image(gpus: bool) -> str:
    """Ray's own container image of our versions of Ray and Python; it has no torch."""
    return f"rayproject/ray:{version('ray')}-py{sys.version_info.major}{sys.version_info.minor}{'-gpu' * gpus}"


class _Quoted(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes all text but words: what YAML takes for a number or a truth value differs between its readers."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent(dumper: Any, text: str) -> Any:
    word = re.fullmatch(r"[A-Za-z]{4,}([./-][A-Za-z]+)*", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None if word else '"')


_Quoted.add_representer(str, _represent)


def as_yaml(*documents: Mapping[str, object]) -> str:
    """YAML documents, in the order given; the same text for the same content."""
    text: str = yaml.dump_all(documents, Dumper=_Quoted, sort_keys=False, width=100)
    return text


def make_private(folder: Path) -> None:
    """Create a folder that only we can look into, and those above it. Raises ClusterError if that cannot be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ClusterError(f"cannot make {folder}: {error.strerror}; make its place writable for you") from None


def write_token(file: Path) -> None:
    """A new token, in a file that only we can read; one that is there already is kept."""
    if not file.exists():
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secrets.token_hex(32))


def bring(ask: Callable[[mirror.Request], str], into: Path) -> int:
    """Bring what is not in ``into`` yet, where ``ask`` has the other side run ANSWER; returns how many bytes came."""
    request, brought = mirror.Request(mirror.digests(into)), 0
    while True:
        data = mirror.joined(ask(request))
        if data is None:
            raise ClusterError("the results were cut off on their way; nothing of them was written, fetch them again")
        came, more = mirror.receive(data, request, into)
        brought += came
        if more is None:
            return brought
        request = more
