"""A Ray cluster by the URL of its dashboard, with Ray's jobs API: the driver runs on the head as a job, and this
machine needs HTTP to one port, and no Ray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cluster import commands, mirror
from cluster.bundle import Bundle
from cluster.connection import last_line, one_line
from cluster.dashboard import Dashboard, Missing, Unreachable
from cluster.errors import ClusterError
from cluster.job import Job, Place, State

STOP_SECONDS = 40  # from SIGTERM to SIGKILL: the driver saves what is in training
PATIENCE_SECONDS = 60.0  # so long the network may be down while we follow
FETCH_SECONDS = 600.0
POLL_SECONDS = 1.0  # between looks at its output
SETTLED_SECONDS = 3.0
FETCH = "results-of-phasesweep"  # begins the ids of jobs that send results, and of no sweep
JOBS = "/api/jobs/"
STATES = {"PENDING": State.WAITING, "RUNNING": State.RUNNING, "SUCCEEDED": State.DONE, "FAILED": State.FAILED,
          "STOPPED": State.STOPPED}


@dataclass(frozen=True)
class RayJobs:
    """The jobs API at ``url``, such as ``http://head:8265``. Raises ClusterError for what is not a URL of one."""

    url: str

    def __post_init__(self) -> None:
        Dashboard(self.url)

    def place(self, name: str, results: str) -> Place:
        """A relative path is one below ``~/phasesweep`` on the head."""
        commands.check_results(results)
        if "://" in results:
            return Place(results, "in the object store", fetched=False)
        if results.startswith("/"):
            return Place(results, "a disk that the head shares", fetched=False)
        return Place(commands.on_head(results), "on the head's disk", fetched=True)

    def look(self) -> str:
        """Its version of Ray."""
        return f"{self.url} takes jobs, with Ray {self._dashboard.version()}"

    def text(self, job: Job) -> str:
        """The two requests."""
        size = f"{len(job.bundle.files)} files, {len(job.bundle.zipped) / 1000:,.0f} kB"
        return (f"PUT {self._dashboard.at(_path(_package(job.bundle)))} ({size}; unless it is there)\n"
                f"POST {self._dashboard.at(JOBS)}\n{json.dumps(_sweep(job, '...'), indent=2)}\n")

    def submit(self, job: Job) -> str:
        """Upload the bundle, unless it is there, and start the job."""
        self._dashboard.version()
        return self._start(_sweep(job, secrets.token_hex(4)), job.bundle)

    def state(self, number: str) -> State:
        """As Ray says; UNKNOWN also where the head was begun anew since."""
        try:
            return self._state(number)
        except Missing:
            return State.UNKNOWN

    def why(self, number: str) -> str:
        """Ray's message, and of one that failed the last line of its output."""
        try:
            record = self._dashboard.get(_job(number))
            state, said = _state(record), one_line(record.get("message") or "")
            if state is State.FAILED:
                return f"{said and f'{said}; '}its output ends with: {last_line(self._output(number))}"
        except Missing:
            return ""
        return said if state is State.WAITING else ""

    def follow(self, number: str) -> Iterator[str]:
        """Asks each second, or less often where an answer takes long. Ray's own first lines are among them.

        Raises ClusterError where there is no such job, or nobody has answered for a minute; the job goes on then.
        """
        shown, answered, final = 0, time.monotonic(), False
        while not final:
            began = time.monotonic()
            try:
                final = self._state(number).final  # asked before the lines, which are the last then
                *lines, rest = self._output(number).split("\n")
            except Unreachable as error:
                final = False
                if time.monotonic() - answered > PATIENCE_SECONDS:
                    raise ClusterError(f"{error}; {number} goes on by itself, `phasesweep status` looks at it again") \
                        from None
                time.sleep(POLL_SECONDS)
                continue
            answered = time.monotonic()
            yield from [*lines, rest][shown:] if final and rest else lines[shown:]
            shown = max(shown, len(lines))
            if not final:
                # A long output is not asked for all the time.
                time.sleep(min(max(POLL_SECONDS, 10 * (answered - began)), 10.0))

    def cancel(self, number: str) -> None:
        """Ray sends SIGTERM now, and SIGKILL if that has not ended it after STOP_SECONDS."""
        self._dashboard.call("POST", f"{_job(number)}/stop", slow=True)

    def fetch(self, number: str, results: str, into: Path) -> int:
        """Jobs of their own print the files, see ``mirror``; their records are deleted by the next fetch."""
        for job in self._dashboard.get(JOBS, kind=list):
            if str(job.get("submission_id")).startswith(f"{FETCH}-") and _settled(job):
                with contextlib.suppress(Missing):  # another fetch was faster
                    self._dashboard.call("DELETE", _job(job["submission_id"]))
        return commands.bring(lambda request: self._printed(results, request), into)

    def _printed(self, results: str, request: mirror.Request) -> str:
        """What a job prints as answer to a request, when all of it is there."""
        bundle = Bundle(request.files)
        number = self._start(_body(FETCH, secrets.token_hex(4), bundle, "cluster.mirror", results), bundle)
        until = time.monotonic() + FETCH_SECONDS
        try:
            while time.monotonic() < until:
                final, text = self._state(number).final, self._output(number)
                if mirror.joined(text) is not None:
                    return text
                if final:
                    raise ClusterError(f"--to {self.url}: the job that was to send {results} ended: {last_line(text)}")
                time.sleep(0.3)
            raise ClusterError(f"--to {self.url}: {results} did not come within {FETCH_SECONDS:g} s; fetch it again")
        finally:
            with contextlib.suppress(ClusterError):  # it ends by itself, later
                self.cancel(number)

    @property
    def _dashboard(self) -> Dashboard:
        return Dashboard(self.url)

    def _state(self, number: str) -> State:
        return _state(self._dashboard.get(_job(number)))

    def _output(self, number: str) -> str:
        return str(self._dashboard.get(f"{_job(number)}/logs", slow=True).get("logs"))

    def _start(self, body: dict[str, Any], bundle: Bundle) -> str:
        path = _path(_package(bundle))
        try:
            self._dashboard.call("GET", path)  # if it is there, Ray keeps it for ten minutes now
        except Missing:
            self._dashboard.call("PUT", path, bundle.zipped, slow=True)
        self._dashboard.call("POST", JOBS, json.dumps(body).encode(), slow=True)
        return str(body["submission_id"])


def _sweep(job: Job, sign: str) -> dict[str, Any]:
    """The request that starts a job."""
    body = _body(f"phasesweep-{job.name}", sign, job.bundle, "orchestrator.cli", *job.arguments)
    return {**body, "metadata": {"study": job.name}}


def _body(name: str, sign: str, bundle: Bundle, *words: str) -> dict[str, Any]:
    """The request that runs a module of a bundle, in the folder that it is unpacked to."""
    name = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)
    return {"submission_id": f"{name}-{sign}", "entrypoint": f"exec python -m {shlex.join(words)}",
            "runtime_env": {"working_dir": f"gcs://{_package(bundle)}",
                            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}}}


def _package(bundle: Bundle) -> str:
    return f"_ray_pkg_{hashlib.blake2b(bundle.zipped, digest_size=8).hexdigest()}.zip"


def _path(package: str) -> str:
    return f"/api/packages/gcs/{package}"


def _state(record: dict[str, Any]) -> State:
    return STATES.get(str(record.get("status")), State.UNKNOWN)


def _settled(record: dict[str, Any]) -> bool:
    """Whether Ray has ceased to look after a job that ended: one without a record it would record as failed."""
    return _state(record).final and time.time() - (record.get("end_time") or 0) / 1000 > SETTLED_SECONDS


def _job(number: str) -> str:
    return f"{JOBS}{quote(number, safe='')}"
