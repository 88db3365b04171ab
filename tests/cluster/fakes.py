"""Slurm, Kubernetes, a cloud and a Ray head as far as our targets see them: programs, and a server, that run what they
are given on this machine, with a stub in place of our driver. What they were called with is in a log."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from cluster import Bundle, Job, mirror

# In place of orchestrator.cli. study.yaml says what it does: exit with a status, or wait until it is asked to stop.
DRIVER = b"""
import json, os, signal, sys, time
word = open("study.yaml").read().strip()
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
print("arguments " + json.dumps(sys.argv[1:]), flush=True)
print("mode " + os.environ.get("RAY_AUTH_MODE", "none"), "token" in str(dict(os.environ).get("RAY_AUTH_TOKEN_PATH")))
print("at " + os.environ.get("RAY_ADDRESS", "auto"), flush=True)
until = time.monotonic() + 60
while word == "wait" and not stopped and time.monotonic() < until:
    time.sleep(0.02)
if stopped:
    print("saved", flush=True)
sys.exit(130 if stopped else 99 if word == "wait" else int(word))
"""

COMMON = """#!{python}
import contextlib, json, os, pathlib, re, shutil, signal, subprocess, sys, time
state = pathlib.Path({state!r})
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
given = "" if sys.stdin is None or sys.stdin.isatty() or name in ("srun", "scontrol", "sinfo") else sys.stdin.read()
with open(state / "log", "a") as log:
    log.write(json.dumps([name, *words]) + "\\n")
if (state / "broken").exists():
    sys.exit("first of\\n  many lines: " + (state / "broken").read_text())
"""

SLURM = """
def start(number, index, array, folder, script):
    # What slurmd does: run the script, again if it is queued again, and take it out of the queue when it ends.
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    own = state / "queue" / (f"{{number}}_{{index}}" if array else str(number))
    environment = {{**os.environ, "SLURM_JOB_ID": str(number + index), "SLURM_CPUS_PER_TASK": "8"}}
    if array:
        environment.update(SLURM_ARRAY_JOB_ID=str(number), SLURM_ARRAY_TASK_ID=str(index))
    again = state / f"again-{{number + index}}"
    while True:
        while (index or (state / "full").exists()) and not (state / "free").exists() and own.exists():
            time.sleep(0.02)
        if not own.exists():  # cancelled while it waited
            os._exit(0)
        again.unlink(missing_ok=True)
        with open(folder / "output.log", "ab") as output:
            batch = subprocess.Popen(["bash", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                     stdout=output, stderr=output, start_new_session=True)
        own.write_text(f"RUNNING {{batch.pid}}")
        until = time.monotonic() + 200
        while batch.poll() is None and not again.exists() and time.monotonic() < until:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(batch.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            batch.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(batch.pid, signal.SIGKILL)
        batch.wait()
        if not again.exists():
            own.unlink(missing_ok=True)
            os._exit(0)
        own.write_text("PENDING 0")

def here(number):
    return [path for path in (state / "queue").iterdir() if re.fullmatch(number + "(_.*)?", path.name)]

if name == "sbatch":
    if words == ["--version"]:
        print("slurm 23.11.4")
        sys.exit()
    script = pathlib.Path(words[-1])
    folder = pathlib.Path(next(word[8:] for word in words if word.startswith("--chdir=")))
    options = {{}}
    for line in script.read_text().splitlines():  # they end where commands begin
        if line.startswith("#SBATCH --"):
            key, _, value = line[10:].partition("=")
            options[key] = value
        elif not line.startswith("#"):
            break
    (state / "options.json").write_text(json.dumps(options))
    number = 1000 * (1 + len(list(state.glob("script-*"))))
    spool = state / f"script-{{number}}"
    shutil.copy(script, spool)
    last = int(options.get("array", "0-0").partition("-")[2])
    (state / "queue").mkdir(exist_ok=True)
    for index in range(last + 1):
        (state / "queue" / (f"{{number}}_{{index}}" if "array" in options else str(number))).write_text("PENDING 0")
    for index in range(last + 1):
        start(number, index, "array" in options, folder, spool)
    print(f"{{number}};fake")
elif name == "squeue":  # "%i|%T|%r"; as a real one prints it: see test_real_slurm
    for path in sorted((state / "queue").iterdir()) if (state / "queue").exists() else []:
        word = path.read_text().split()[0]
        reason = (state / "reason").read_text() if (state / "reason").exists() else "Resources"
        print(path.name, word, reason if word == "PENDING" else "None", sep="|")
elif name == "sinfo":
    if words != ["--noheader", "--exact", "--format=%P|%a|%l|%D|%c|%m|%G|%f"]:
        sys.exit(f"sinfo: this one does not know {{words}}")
    if (state / "sinfo").exists():
        print((state / "sinfo").read_text(), end="")
    else:
        print("main*|up|infinite|8|64|256000|gpu:a100:4|ib")
        print("long|up|30-00:00:00|8|64|256000|gpu:a100:4|ib")
elif name == "scancel":
    for path in here(words[-1]):
        status, pid = path.read_text().split()
        if "--state=PENDING" in words and status == "PENDING":
            path.unlink()
        elif "--signal=TERM" in words and status == "RUNNING":
            os.kill(int(pid), signal.SIGTERM)
elif name == "scontrol" and words[0] == "--oneliner":
    if not (state / "ended").exists():
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(f"JobId={{words[-1]}} JobName=ps-tiny " + (state / "ended").read_text())
elif name == "scontrol":
    (state / f"again-{{words[1]}}").touch()
elif name == "srun":
    count = int(next(word[8:] for word in words if word.startswith("--nodes=")))
    command = words[next(at for at, word in enumerate(words) if not word.startswith("--")):]
    nodes = [subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(rank)}}) for rank in range(count)]
    sys.exit(max(node.wait() for node in nodes))
elif name == "ray":
    assert os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777 == 0o600
    assert os.path.isdir(next(word[11:] for word in words if word.startswith("--temp-dir=")))
    if words[0] == "symmetric-run":
        if os.environ["SLURM_PROCID"] == "0":
            sys.exit(subprocess.run(words[words.index("--") + 1:]).returncode)
        sys.exit()
    while (state / "slow").exists():
        time.sleep(0.02)
    if (state / "no ray").exists():
        sys.exit("this Ray does not start")
    print("Ray runtime started.", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.05)
"""

KUBERNETES = """
import base64, shlex, yaml
def status(job, word=None):
    file = state / job / "status"
    if word is not None:
        file.write_text(word)
    return file.read_text()

def script(job, *more):
    text = (state / job / "run.sh").read_text().replace("/tmp/phasesweep", str(state / job / "tmp"))
    return ["bash", "-c", text, "run.sh", *more]

verb, what = words[2:4]
if verb == "apply":
    config, job = yaml.safe_load_all(given)
    (state / "manifest.yaml").write_text(given)
    name, folder = job["metadata"]["name"], state / job["metadata"]["name"]
    if folder.exists():
        sys.exit()
    (folder / "code").mkdir(parents=True)
    (folder / "bundle.zip").write_bytes(base64.b64decode(config["binaryData"]["bundle.zip"]))
    (folder / "run.sh").write_text(config["data"]["run.sh"])
    shutil.unpack_archive(folder / "bundle.zip", folder / "code")
    status(name, "Running")
    if os.fork() == 0:  # KubeRay
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        with open(folder / "logs", "wb") as logs:
            done = subprocess.run(script(name), cwd=folder / "code", stdout=logs, stderr=logs)
        if status(name) == "Running":
            status(name, "Failed" if done.returncode else "Complete")
        os._exit(0)
elif verb == "get" and what == "rayjob":
    if (state / words[4]).exists():
        found = {{"jobDeploymentStatus": status(words[4]), "rayClusterName": words[4] + "-abc"}}
        print(json.dumps({{"status": found}}))
elif verb == "get" and what == "pods" and "--output=json" in words:
    pods = state / ("pods.json" if "ray.io/cluster" in " ".join(words) else "none")
    print(pods.read_text() if pods.exists() else '{{"items": []}}')
elif verb == "get" and what == "pods":
    job = re.search("--selector=(job-name|ray.io/cluster)=([^ ,]*)", " ".join(words))[2].removesuffix("-abc")
    if (state / job / "logs").exists():
        print("pod/" + job)
elif verb == "get":
    print("v1 v1alpha1")
elif verb == "logs":
    job = words[-1].removeprefix("pod/")
    while status(job) == "Running":
        time.sleep(0.05)
    sys.stdout.write((state / job / "logs").read_text())
elif verb == "patch":
    assert json.loads(words[-1]) == {{"spec": {{"suspend": True}}}}
    status(words[4], "Suspending")
    subprocess.run(script(words[4], "stop"), check=True)
    status(words[4], "Suspended")
elif verb == "delete":
    shutil.rmtree(state / words[4])
elif verb == "exec":
    job = next(word for word in words if word.startswith("pod/"))[4:]
    command = [word.replace("/phasesweep/", str(state / job) + "/") for word in words[words.index("--") + 1:]]
    sys.exit(subprocess.run(command, input=given, text=True).returncode)
"""

CLOUD = """
home = state / "head"
if words == ["--version"]:
    print("ray, version 9.9.9")
elif words[0] == "up":
    home.mkdir(exist_ok=True)
elif words[0] == "rsync-up":
    source, target = words[2:]
    assert source.endswith("/") and target.startswith("~/")
    shutil.copytree(source, home / target[2:], dirs_exist_ok=True)
elif words[0] == "exec":
    if not home.exists():
        sys.exit("RuntimeError: Head node of cluster (x) not found!")
    print("Loaded cached provider configuration\\r", flush=True)
    done = subprocess.run(["bash", "-c", words[2]], env={{**os.environ, "HOME": str(home)}}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE if words[2].split()[2] != "start" else None)
    sys.stdout.write((done.stdout or b"").decode().replace("\\n", "\\r\\n"))
    print("Shared connection to 10.0.0.1 closed.\\r")
    sys.exit(done.returncode)
"""

PROGRAMS = {"slurm": (SLURM, ("sbatch", "sinfo", "squeue", "scancel", "scontrol", "srun", "ray")),
            "kubernetes": (KUBERNETES, ("kubectl",)), "cloud": (CLOUD, ("ray",))}


@dataclass(frozen=True)
class Fake:
    """Programs in ``programs``, which keep what they know in ``state``."""

    programs: Path
    state: Path

    def __post_init__(self) -> None:
        self.state.mkdir(parents=True)
        self.programs.mkdir()

    @classmethod
    def install(cls, kind: str, root: Path) -> Fake:
        """The programs of Slurm, Kubernetes or a cloud, below ``root``."""
        fake = cls(root / "programs", root / "state")
        text, names = PROGRAMS[kind]
        for name in names:
            (fake.programs / name).write_text((COMMON + text).format(python=sys.executable, state=str(fake.state)))
            (fake.programs / name).chmod(0o755)
        return fake

    @property
    def path(self) -> str:
        """For PATH: the programs, then those of this Python and of the system."""
        return f"{self.programs}:{Path(sys.executable).parent}:/usr/bin:/bin"

    @property
    def calls(self) -> list[list[str]]:
        """The command line of each call so far."""
        log = self.state / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def break_down(self, reason: str) -> None:
        """From now on every program fails, in many lines."""
        (self.state / "broken").write_text(reason)

    def vanish(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on there is none of the programs, also not beside this Python."""
        monkeypatch.setenv("PATH", str(self.state))
        monkeypatch.setattr(sys, "executable", str(self.state / "python"))


@dataclass(frozen=True)
class Dashboard(Fake):
    """A Ray head that ``server`` speaks for; each job has a folder in ``state``."""

    server: ThreadingHTTPServer
    packages: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        """Status and text of the answer to a request."""
        with (self.state / "log").open("a") as log:
            log.write(json.dumps([method, path, body.decode() if method == "POST" else ""]) + "\n")
        if (self.state / "broken").exists():
            return 500, "first of\n  many lines: " + (self.state / "broken").read_text()
        found: object = {}
        match method, *map(unquote, path.split("/")[2:]):
            case "GET", "version":
                found = {"ray_version": "9.9.9"}
            case "PUT", "packages", "gcs", package:
                self.packages[package] = body
            case "GET", "packages", "gcs", package if package in self.packages:
                pass
            case "GET", "jobs", "":
                found = [self.record(number) for number in self.jobs]
            case "POST", "jobs", "":
                self.start(**json.loads(body))
            case "GET", "jobs", number if number in self.jobs:
                found = self.record(number)
            case "GET", "jobs", number, "logs" if number in self.jobs:
                found = {"logs": (self.state / number / "logs").read_text()}
            case "POST", "jobs", number, "stop" if number in self.jobs:
                if self.jobs[number].poll() is None:
                    self.stopped.add(number)
                    self.jobs[number].terminate()
            case "DELETE", "jobs", number if number in self.jobs:
                del self.jobs[number]
            case _, "packages" | "jobs", _, *_:
                return 404, f"{path} does not exist"
            case _:
                return 404, "404: Not Found"
        return 200, json.dumps(found)

    def start(self, submission_id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: object = None) -> None:
        """Run a job as the head does: in its package, and with nothing of this process's environment."""
        folder = self.state / submission_id
        package = self.packages[runtime_env["working_dir"].removeprefix("gcs://")]
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            archive.extractall(folder / "code")
        environment = {"PATH": self.path, "HOME": str(folder), **runtime_env["env_vars"]}
        with (folder / "logs").open("ab") as logs:
            self.jobs[submission_id] = subprocess.Popen(
                ["bash", "-c", entrypoint], cwd=folder / "code", env=environment, stdin=subprocess.DEVNULL,
                stdout=logs, stderr=logs)

    def record(self, number: str) -> dict[str, str]:
        """What Ray says of a job."""
        status = self.jobs[number].poll()
        ended = "STOPPED" if number in self.stopped else "FAILED" if status else "SUCCEEDED"
        message = f"Job entrypoint command failed with exit code {status}, last available logs (truncated to 20,000 " \
                  "chars):\n..." if status else "Job is currently running."  # as Ray 2.60 says
        return {"submission_id": number, "status": "RUNNING" if status is None else ended, "message": message}

    def vanish(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on nobody listens."""
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def dashboard(root: Path, token: str) -> Iterator[Dashboard]:
    """A Ray head on this machine, which answers those that show ``token``; and on leaving nothing of it."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known = self.headers["Authorization"] == f"Bearer {token}"
            status, text = found.answer(self.command, self.path, body) if known else (401, "")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Dashboard(root / "programs", root / "state", server)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
            for process in found.jobs.values():  # of a test that failed
                process.kill()
                process.wait()


@contextmanager
def short_temporary_folder() -> Iterator[str]:
    """For TMPDIR: the sockets of Ray would have paths that are too long below pytest's."""
    folder = tempfile.mkdtemp(prefix="ps-", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def job(word: str, name: str = "tiny", results: str = "s3://bucket/tiny") -> Job:
    """A job whose driver does what ``word`` says."""
    code = {name: content for name, content in mirror.Request({}).files.items() if name.startswith("cluster/")}
    files = {"orchestrator/__init__.py": b"", "orchestrator/cli.py": DRIVER, "study.yaml": word.encode()}
    return Job(name, Bundle({**code, **files}), results)
