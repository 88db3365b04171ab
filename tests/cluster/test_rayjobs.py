"""A study handed to a Ray cluster as a job, over HTTP alone. The head is a real one, with token and dashboard."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import driving
import heads
import pandas as pd
import pytest
from heads import Head, closed_port
from support import Cli, Tables

from cluster import Bundle, ClusterError, Job, State, dashboard, rayjobs
from cluster.rayjobs import RayJobs
from orchestrator.shipping import bundle
from search_spaces import load_study

STUDY = """
study: jobs
trial:
  task: digits
  model: {name: "slow.py:build"}
  optimizer: {name: sgd, lr: 0.05}
  budget: {steps: 80}
  precision: float64
space:
  batch_size: [16, 32]
  lr: [0.01, 0.02]
  seed: {replicates: 3}
measure: {weights: ends}
pack: off
"""
# A trial takes a second, however fast the machine is: time enough to stop it.
SLOW = """
import time
from torch import nn

class Slow(nn.Linear):
    def forward(self, x):
        time.sleep(0.012)
        return super().forward(x)

def build(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), Slow(64, outputs))
"""
TRIALS = 12
ROUNDING = 1e-6
NAME = "orchestrator/version.py"
wait = partial(driving.wait, seconds=180.0)
MARK = "0.0.1+of.the.bundle"  # a version that is nowhere installed


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with heads.started(dashboard=True) as head, pytest.MonkeyPatch.context() as monkeypatch:
        head.let_in(monkeypatch)
        yield head


@pytest.fixture
def jobs(head: Head) -> RayJobs:
    assert head.jobs is not None
    return RayJobs(head.jobs)


def program(text: str) -> Job:
    """A job whose command line is this script."""
    return Job("a job's", Bundle({"orchestrator/__init__.py": b"", "orchestrator/cli.py": text.encode()}), "~/x y")


@dataclass(frozen=True)
class Swept:
    """A study on the head: the job, its number and how many trials were there when it ended."""

    job: Job
    number: str
    trials: int
    there: Path
    study: Path


@pytest.fixture(scope="module")
def stopped(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """In the middle."""
    path = tmp_path_factory.mktemp("study") / "jobs.yaml"
    path.write_text(STUDY)
    (path.parent / "slow.py").write_text(SLOW)
    study = load_study(str(path))
    files = bundle(study).files
    job = Job(study.name, Bundle({**files, NAME: f'VERSION = "{MARK}"\n'.encode()}), "~/phasesweep/results/jobs")
    there, target = head.root / "phasesweep" / "results" / "jobs", RayJobs(str(head.jobs))
    number = target.submit(job)
    wait(lambda: trials(there) or target.state(number).final)
    target.cancel(number)
    wait(lambda: target.state(number).final)
    return Swept(job, number, trials(there), there, path)


@pytest.fixture(scope="module")
def finished(stopped: Swept, head: Head) -> tuple[Swept, list[str]]:
    """Handed over once more; and what the job said."""
    number = RayJobs(str(head.jobs)).submit(stopped.job)
    lines = list(RayJobs(str(head.jobs)).follow(number))
    return replace(stopped, number=number, trials=trials(stopped.there)), lines


def trials(results: Path) -> int:
    try:
        return len(pd.read_parquet(results / "trials", columns=["trial_id"]))
    except (OSError, ValueError):
        return 0


def test_look_and_text(jobs: RayJobs) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ takes jobs, with Ray \d+\.\d+\.\d+", jobs.look())
    put, post, *body = jobs.text(program("x")).split("\n")
    package = re.fullmatch(rf"PUT {jobs.url}/api/packages/gcs/(_ray_pkg_[0-9a-f]{{16}}\.zip) \(2 files, 0 kB; unless "
                           r"it is there\)", put)
    assert package is not None and post == f"POST {jobs.url}/api/jobs/"
    assert json.loads("".join(body)) == {
        "submission_id": "phasesweep-a-job-s-...", "metadata": {"study": "a job's"},
        "entrypoint": "exec python -m orchestrator.cli submit study.yaml --to auto 'results=~/x y'",
        "runtime_env": {"working_dir": f"gcs://{package[1]}", "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "40"}}}


def test_stopped_in_the_middle(stopped: Swept, jobs: RayJobs) -> None:
    assert jobs.state(stopped.number) is State.STOPPED
    assert 0 < stopped.trials < TRIALS and not (stopped.there / ".lease").exists()


def test_continued_every_trial_is_there_once(finished: tuple[Swept, list[str]], stopped: Swept, jobs: RayJobs) -> None:
    swept, lines = finished
    assert jobs.state(swept.number) is State.DONE
    assert f"jobs: {TRIALS - stopped.trials} of {TRIALS} trials to run" in lines
    assert f"jobs: {TRIALS} completed" in lines and swept.trials == TRIALS
    assert list(jobs.follow(swept.number)) == lines  # from the first on, also later


def test_the_same_tables_as_on_this_machine(finished: tuple[Swept, list[str]], stored: Tables, cli: Cli,
                                            tmp_path: Path) -> None:
    cli("run", finished[0].study, "space.seed.replicates=1", f"results={tmp_path}")
    here, there = stored(tmp_path), stored(finished[0].there)
    assert len(there["trials"]) == TRIALS and len(here["trials"]) == TRIALS // 3
    # Driver and workers ran the bundle's code, though the head has its own installed.
    assert set(there["trials"].pop("version")) == {MARK} and MARK not in set(here["trials"].pop("version"))
    for table, frame in here.items():
        of_both = there[table][there[table]["trial_id"].isin(here["trials"]["trial_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(of_both, frame, rtol=ROUNDING, atol=1e-12)


def test_fetched_once(finished: tuple[Swept, list[str]], jobs: RayJobs, tmp_path: Path) -> None:
    swept, into = finished[0], tmp_path / "results"
    came = jobs.fetch(swept.number, swept.job.results, into)
    names = {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()} - {".mirror"}
    assert "trials/part-00000.parquet" in names and "study.yaml" in names
    assert came == sum((into / name).stat().st_size for name in names)
    for name in names:
        assert (into / name).read_bytes() == (swept.there / name).read_bytes()
    sender, = senders(jobs)
    wait(lambda: rayjobs._settled(jobs._dashboard.get(f"/api/jobs/{sender['submission_id']}")))
    assert jobs.fetch(swept.number, swept.job.results, into) == 0
    assert sender["submission_id"] not in [record["submission_id"] for record in senders(jobs)]
    assert jobs.state(swept.number) is State.DONE


def senders(jobs: RayJobs) -> list[dict[str, str]]:
    """Records of jobs that send results."""
    records = jobs._dashboard.get("/api/jobs/", kind=list)
    return [record for record in records if record["submission_id"].startswith(rayjobs.FETCH)]


def test_ray_says_nothing_odd(finished: tuple[Swept, list[str]]) -> None:
    own = re.compile("Runtime env is setting up|^Running entrypoint for job|^trials .* · starting Ray$")
    said = [line for line in finished[1] if not own.search(line)]
    assert len(said) == len(finished[1]) - 3
    for sign in ("ray", "warn", "pid=", "info", r"\d\d:\d\d:\d\d"):
        assert not [line for line in said if re.search(rf"\b{sign}", line, re.IGNORECASE)]


def test_the_token_is_nowhere(finished: tuple[Swept, list[str]], head: Head, jobs: RayJobs) -> None:
    swept, lines = finished
    records = json.dumps(jobs._dashboard.get("/api/jobs/", kind=list))
    assert swept.number in records
    assert head.token not in records + "\n".join(lines) + jobs.text(swept.job) + repr(jobs)
    files = [path for path in head.root.rglob("*") if path.is_file() and path.name != "token"]
    assert any(path.name == f"job-driver-{swept.number}.log" for path in files)
    assert [path for path in files if head.token.encode() in path.read_bytes()] == []


def test_it_goes_on_when_the_submitter_has_died(jobs: RayJobs, tmp_path: Path) -> None:
    script = """if True:
        import os, sys
        from cluster import Bundle, Job
        from cluster.rayjobs import RayJobs
        url, code = sys.argv[1:]
        bundle = Bundle({"orchestrator/__init__.py": b"", "orchestrator/cli.py": code.encode()})
        print(RayJobs(url).submit(Job("orphan", bundle, "x")), flush=True)
        os.kill(os.getpid(), 9)
    """
    go = tmp_path / "go"
    code = f"""if True:
        import os, sys, time
        print("began", flush=True)
        while not os.path.exists({str(go)!r}):
            time.sleep(0.1)
        print("ended")
        sys.exit(3)
    """
    done = subprocess.run([sys.executable, "-c", script, jobs.url, code], capture_output=True, text=True, timeout=120)
    number = done.stdout.strip()
    assert done.returncode == -9 and re.fullmatch("phasesweep-orphan-[0-9a-f]{8}", number), done.stderr
    assert jobs.state(number) in (State.WAITING, State.RUNNING)
    lines = jobs.follow(number)
    assert next(line for line in lines if line == "began")  # it does not wait for the end to show the beginning
    go.touch()
    assert list(lines) == ["ended"]
    assert jobs.state(number) is State.FAILED


def test_it_has_time_to_save(jobs: RayJobs) -> None:
    """Longer than the 3 seconds after which Ray kills by default."""
    number = jobs.submit(program("""if True:
        import signal, sys, time
        def save(*_):
            time.sleep(4.5)
            print("saved", flush=True)
            sys.exit()
        signal.signal(signal.SIGTERM, save)
        print(sys.argv[1:], flush=True)
        time.sleep(600)
    """))
    lines = jobs.follow(number)
    wait(lambda: next(lines) == str(["submit", "study.yaml", "--to", "auto", "results=~/x y"]))
    jobs.cancel(number)
    assert list(lines) == ["saved"]
    assert jobs.state(number) is State.STOPPED
    jobs.cancel(number)  # it has ended: no error


def test_a_job_that_is_not_known(jobs: RayJobs) -> None:
    assert jobs.state("phasesweep-x-00") is jobs.state("../version") is State.UNKNOWN
    with pytest.raises(ClusterError, match=r"^--to \S+: Job phasesweep-x-00 does not exist$"):
        next(jobs.follow("phasesweep-x-00"))


def test_results_that_cannot_be_read_there(jobs: RayJobs, head: Head, tmp_path: Path) -> None:
    (head.root / "file").mkdir()
    (head.root / "file" / ".origin").mkdir()
    with pytest.raises(ClusterError, match=r"the results cannot be read there: \[Errno 21\] Is a directory: "):
        jobs.fetch("x", str(head.root / "file"), tmp_path / "here")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mode", "token", "expected"), [
    ("token", "0123456789abcdef", "the cluster refuses the token in RAY_AUTH_TOKEN; it takes the one its head was"),
    ("disabled", None, r"the cluster refuses a driver without a token \(RAY_AUTH_MODE=disabled\)"),
    ("token", None, r"^no token to join a cluster with: put the cluster's into \S+/missing"),
    ("token", "0123\n456789abcdef", "^the token in RAY_AUTH_TOKEN is not a token: it has spaces"),
    ("token", "0123456789äbcdef", "^the token in RAY_AUTH_TOKEN is not a token: it has spaces"),
])
def test_not_let_in(mode: str, token: str | None, expected: str, jobs: RayJobs, tmp_path: Path,
                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "missing"))
    if token is not None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    began = time.monotonic()
    with pytest.raises(ClusterError, match=expected) as caught:
        jobs.submit(program(""))
    assert time.monotonic() - began < 10 and "\n" not in str(caught.value) and "0123" not in str(caught.value)


Answer = Callable[[BaseHTTPRequestHandler], "tuple[int, str]"]


@dataclass
class Fake:
    """A server that gives the answers it is told to, and keeps the headers it was sent."""

    url: str
    answer: Answer
    heard: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def fake(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.heard.append(dict(self.headers))
            code, text = found.answer(self)
            self.send_response(code)
            if 300 <= code < 400:
                self.send_header("Location", text)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # type: ignore[method-assign]
        found = Fake(f"http{'s' if context else ''}://127.0.0.1:{server.server_port}", answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-secret")
    return "a-secret"


@pytest.mark.parametrize(("code", "text", "expected"), [
    (404, "404: Not Found", "what answers there is not a Ray dashboard; its port is usually 8265"),
    (200, "<!DOCTYPE html>", "what answers there is not a Ray dashboard; its port is usually 8265"),
    (200, "[1]", "what answers there is not a Ray dashboard; its port is usually 8265"),
    (200, '{"version": "4"}', "what answers there is not a Ray dashboard; its port is usually 8265"),
    (200, '{"ray_version": "2.9.3"}', r"Ray 2\.9\.3 is too old there; it takes `pip install 'ray\[default\]>=2\.52'`"),
    (413, "", "the study's files are more than the cluster takes"),
    (500, "Traceback\n  x\nValueError: a\tb\n", "500 ValueError: a b; see the dashboard's log"),
    (401, "", "refuses the token in RAY_AUTH_TOKEN"),
    (403, "", "refuses the token in RAY_AUTH_TOKEN"),
])
def test_other_answers(code: int, text: str, expected: str, token: str) -> None:
    with fake(lambda _: (code, text)) as server, pytest.raises(ClusterError) as caught:
        RayJobs(server.url).look()
    assert re.fullmatch(rf"--to {server.url}: [^\n]*{expected}[^\n]*", str(caught.value))
    assert token not in str(caught.value) and server.heard[0]["Authorization"] == f"Bearer {token}"


def test_the_token_goes_to_nobody_else(token: str) -> None:
    with fake(lambda _: (200, "{}")) as other, fake(lambda _: (307, f"{other.url}/x")) as server, \
            pytest.raises(ClusterError, match=f"sends us on to '{other.url}/x'; give the URL of the dashboard itself"):
        RayJobs(server.url).state("x")
    assert other.heard == []


def test_nobody_answers(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    with pytest.raises(ClusterError, match=r"nobody answers there \(.*refused\); .*`pip install 'ray\[default\]'"):
        RayJobs(f"http://127.0.0.1:{port}").look()
    with pytest.raises(ClusterError, match="nobody answers there"):
        RayJobs("http://no-such-host.invalid:8265").look()
    assert dashboard.ANSWER_SECONDS < 10
    monkeypatch.setattr(dashboard, "ANSWER_SECONDS", 0.5)
    silent = threading.Event()
    with fake(lambda _: (silent.wait(20), (200, "{}"))[1]) as server:
        with pytest.raises(ClusterError, match=r"nobody answers there \(.*timed out\)"):
            RayJobs(server.url).look()
        silent.set()


def test_tls(token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "certificate.pem"
    key = certificate.with_suffix(".key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                    "-days", "2", "-subj", "/CN=head", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with fake(lambda _: (200, '{"ray_version": "2.60.0"}'), context) as server:
        with pytest.raises(ClusterError, match=r"its certificate is not trusted \(self.signed certificate\); name its"):
            RayJobs(server.url).look()
        with pytest.raises(ClusterError, match=r"broke off, or does not speak HTTP; .* is it https://"):
            RayJobs(server.url.replace("https", "http")).look()
        assert server.heard == []
    with fake(lambda _: (200, "{}")) as server, pytest.raises(ClusterError, match="does not speak TLS; try http://"):
        RayJobs(server.url.replace("http", "https")).look()


def test_a_network_that_fails_for_a_while(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is shown once, an unfinished one when it is whole."""
    logs = iter(["one\ntw", None, "one\ntwo\nthree\n", None, "one\ntwo\nthree\nfour"])
    states = iter(["RUNNING", None, "RUNNING", "RUNNING", "SUCCEEDED"])

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        logs_wanted = request.path == "/api/jobs/x/logs"
        found: Any = next(logs if logs_wanted else states)
        if not logs_wanted and found is None:
            next(logs)
        return (500, "hiccup") if found is None else (200, json.dumps({"logs" if logs_wanted else "status": found}))

    monkeypatch.setattr(rayjobs.time, "sleep", lambda seconds: None)
    with fake(answer) as server:
        assert list(RayJobs(server.url).follow("x")) == ["one", "two", "three", "four"]


def test_a_network_that_fails_for_long(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rayjobs, "PATIENCE_SECONDS", 0.2)
    with fake(lambda _: (200, '{"status": "RUNNING", "logs": "one\\n"}')) as server:
        lines = RayJobs(server.url).follow("x")
        assert next(lines) == "one"
    with pytest.raises(ClusterError, match=r"nobody answers .*; x goes on by itself, `phasesweep status` looks at it"):
        next(lines)


@pytest.mark.parametrize("url", ["http://", "http://:8265", "http://a:x", "http://a:99999", "ftp://a:1", "a:8265",
                                 "http://u:a-secret@a:1", "http://a:1/?a-secret", "http://a b:1", "http://a:1/#/jobs"])
def test_not_a_url(url: str) -> None:
    with pytest.raises(ClusterError, match="expected the URL of a Ray dashboard, such as http://head:8265") as caught:
        RayJobs(url)
    assert "u:a-secret" not in str(caught.value)


@pytest.mark.parametrize(("results", "there", "fetched"), [
    ("results/tiny", "~/phasesweep/results/tiny", True),
    ("./a/../b", "~/phasesweep/b", True),
    ("~/mine", "~/mine", True),
    ("/mnt/shared/tiny", "/mnt/shared/tiny", False),
    ("s3://bucket/tiny", "s3://bucket/tiny", False),
])
def test_where_results_go(results: str, there: str, fetched: bool) -> None:
    place = RayJobs("http://head:8265").place("tiny", results)
    assert (place.results, place.fetched) == (there, fetched)


@pytest.mark.parametrize("results", ["../x", "a/../../x", "~/../x"])
def test_results_that_lead_out(results: str) -> None:
    with pytest.raises(ClusterError, match=rf"^results={re.escape(results)}: leads out of ~/phasesweep on the head"):
        RayJobs("http://head:8265").place("tiny", results)


def test_the_least_version_is_that_of_our_requirements() -> None:
    wanted = next(need for need in requires("phasesweep") or [] if need.startswith("ray["))
    assert wanted.endswith(f">={'.'.join(map(str, dashboard.LEAST_RAY))}")
