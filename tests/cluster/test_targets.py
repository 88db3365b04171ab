"""What holds for every target that takes jobs, whatever is behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import FrozenInstanceError, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import fakes
import pytest
import yaml

import cluster
from cluster import ClusterError, State, Target

HOSTILE = ["$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "a b\t c", "-rf", "é 漢 \\ %j",
           "x\ntouch pwned", "x\n#SBATCH --mail-type=ALL", "{a: b}", "&& touch pwned #", "~", "*"]
SECRET = "0123456789abcdef-the-users-own-token"


def of_slurm(text: str) -> tuple[str, str]:
    return text, "driver"


def of_kubernetes(text: str) -> tuple[str, str]:
    script = next(yaml.safe_load_all(text))["data"]["run.sh"]
    return script.replace("/tmp/phasesweep", "$PWD/tmp"), "run"


def of_cloud(text: str) -> tuple[str, str]:
    return list(yaml.safe_load_all(text))[1]["job.sh"], "run"


def of_dashboard(text: str) -> tuple[str, str]:
    body = text.split("\n", 2)[2]  # of the second request
    return f"cd code; {json.loads(body)['entrypoint']}", "run"


@dataclass(frozen=True)
class Kind:
    """A target as ``--to`` (empty: the URL of its fake) and ``--with`` give it, what is said where it is missing, and
    the script in its text with the word that runs the driver."""

    fake: str
    to: str
    options: tuple[str, ...]
    bad: tuple[str, ...]
    missing: str
    script: Callable[[str], tuple[str, str]]


KINDS = {
    "slurm": Kind("slurm", "slurm", (), ("nodes=0", "cpus=-1", "time=soon", "partition=a b", "setup=a\nb", "memory=8GB",
                                         "account=x;y", "folder="), "sbatch", of_slurm),
    "slurm-array": Kind("slurm", "slurm", ("array=true", "nodes=2"), ("gpus=-1",), "sbatch", of_slurm),
    "slurm-nodes": Kind("slurm", "slurm", ("nodes=2",), ("time=1:2",), "sbatch", of_slurm),
    "kubernetes": Kind("kubernetes", "kubernetes", (), ("namespace=A", "image=a b", "workers=0", "memory=8GB",
                                                        "claim=x/y", "ttl=-1"), "kubectl", of_kubernetes),
    "aws": Kind("cloud", "aws", (), ("region=a b", "machine=x\ny", "workers=-1", "image=$(x)"), "ray", of_cloud),
    "gcp": Kind("cloud", "gcp", ("project=mine",), ("project=", "spot=perhaps"), "ray", of_cloud),
    "azure": Kind("cloud", "azure", (), ("head_machine=;",), "ray", of_cloud),
    "rayjobs": Kind("dashboard", "", (), (), "nobody answers there", of_dashboard),
}


@dataclass(frozen=True)
class Place:
    """A target with a fake of its other side around it, a home and a working directory of its own."""

    kind: Kind
    fake: fakes.Fake
    target: Target
    root: Path

    def until(self, number: str, wanted: State) -> None:
        deadline = time.monotonic() + 60
        while (state := self.target.state(number)) is not wanted:
            assert time.monotonic() < deadline and not (state.final and wanted is State.RUNNING), state
            time.sleep(0.1)

    def lines_until(self, number: str, start: str) -> list[str]:
        """The first lines of its output, up to one with this start."""
        seen: list[str] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            logs = [path for path in self.root.rglob("*") if path.name in ("output.log", "logs")]
            seen = [line for path in logs for line in path.read_text().splitlines()]
            if any(line.startswith(start) for line in seen):
                return seen
            time.sleep(0.05)
        pytest.fail(f"no line {start!r} among {seen}")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    kind = KINDS[request.param]
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    for module in ("slurm", "kubernetes", "cloud", "rayjobs"):
        monkeypatch.setattr(f"cluster.{module}.POLL_SECONDS", 0.1)
    root = tmp_path / "fake"
    started = nullcontext(fakes.Fake.install(kind.fake, root)) if kind.to else fakes.dashboard(root, SECRET)
    with started as fake, fakes.short_temporary_folder() as folder:
        monkeypatch.setenv("PATH", fake.path)
        options = [*kind.options, *([f"setup=export PATH={fake.path}"] if kind.to == "slurm" else [])]
        target = cluster.target(fake.url if isinstance(fake, fakes.Dashboard) else kind.to, options)
        assert target is not None
        (fake.state / "free").touch()
        monkeypatch.setenv("TMPDIR", folder)
        yield Place(kind, fake, target, tmp_path)
    for path in (tmp_path / "home").rglob("driver.pid"):  # of a test that failed
        subprocess.run(["kill", path.read_text().strip()], stderr=subprocess.DEVNULL, check=False)


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def one_line(error: Any) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 700 and "Traceback" not in message
    return message


def test_text_is_the_same_each_time_and_touches_nothing(place: Place) -> None:
    before = files(place.root)
    job = fakes.job("0")
    first, again = place.target.text(job), place.target.text(fakes.job("0"))
    assert first == again and SECRET not in first
    assert {path: content for path, content in files(place.root).items() if path.name != "log"} == before
    assert all(call[0] == "sinfo" for call in place.fake.calls)  # which is asked, and told nothing


@pytest.mark.parametrize("place", ["slurm", "kubernetes", "aws", "rayjobs"], indirect=True)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_and_paths_are_inert(place: Place, hostile: str) -> None:
    """The driver gets the results path whole, and nothing else is run."""
    text = place.target.text(fakes.job("0", hostile, hostile))
    script, word = place.kind.script(text)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, capture_output=True)
    (place.root / "here" / "code").mkdir()
    stub = place.fake.programs / "python"
    stub.write_text(f"#!{sys.executable}\nimport json, sys\n"
                    f"open({str(place.root / 'arguments')!r}, 'w').write(json.dumps(sys.argv[1:]))\n")
    stub.chmod(0o755)
    (place.root / "here" / "job.sh").write_text(script)
    subprocess.run(["bash", "job.sh", word], check=True, capture_output=True, timeout=60)
    expected = ["-m", "orchestrator.cli", "submit", "study.yaml", "--to", "auto", f"results={hostile}"]
    assert json.loads((place.root / "arguments").read_text()) == expected
    assert list(place.root.rglob("pwned")) == []
    options = list(takewhile(lambda line: line.startswith("#"), text.splitlines()))  # sbatch reads them up to a command
    assert not any("--mail-type" in line for line in options)


def test_a_job_runs_to_its_end(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    number = place.target.submit(fakes.job("0"))
    assert number and "\n" not in number
    lines = list(place.target.follow(number))
    assert place.target.state(number) is State.DONE
    assert lines.count('arguments ["submit", "study.yaml", "--to", "auto", "results=s3://bucket/tiny"]') == 1
    assert list(place.target.follow(number)) == lines
    place.target.cancel(number)
    assert place.target.state(number) is State.DONE
    assert capfd.readouterr() == ("", "")


def test_a_job_that_fails(place: Place) -> None:
    number = place.target.submit(fakes.job("1"))
    place.until(number, State.FAILED)


def test_a_job_is_cancelled(place: Place) -> None:
    number = place.target.submit(fakes.job("wait"))
    place.lines_until(number, "at ")
    assert place.target.state(number) is State.RUNNING
    place.target.cancel(number)
    place.until(number, State.STOPPED)
    assert "saved" in list(place.target.follow(number))
    place.target.cancel(number)
    assert place.target.state(number) is State.STOPPED


def test_the_token_is_nobody_elses(place: Place) -> None:
    """Only in files of ours, in folders of ours; never among arguments, and never the one that lets us in elsewhere."""
    number = place.target.submit(fakes.job("0"))
    list(place.target.follow(number))
    found = {path: path.read_text().strip() for path in place.root.rglob("*token*") if path.is_file()}
    assert all(len(token) >= 32 for token in found.values())
    assert (len(found) == 0) == (place.kind.fake in ("kubernetes", "dashboard"))  # where they have their own
    for path, token in found.items():
        assert any(folder.stat().st_mode & 0o077 == 0 for folder in path.parents if folder.is_relative_to(place.root))
        for other, content in files(place.root).items():
            assert other == path or token.encode() not in content
    assert not any(SECRET.encode() in content for content in files(place.root).values())


def test_places(place: Place) -> None:
    uri = place.target.place("tiny", "s3://bucket/a b")
    assert (uri.results, uri.fetched) == ("s3://bucket/a b", False)
    for results in ("", "a\nb", "a\0b", "s3://bucket/\n"):
        with pytest.raises(ClusterError) as caught:
            place.target.place("tiny", results)
        assert "results=" in one_line(caught)


@pytest.mark.parametrize("place", ["slurm", "kubernetes", "aws", "rayjobs"], indirect=True)
def test_results_are_brought_as_far_as_they_are_not_here(place: Place) -> None:
    there, here = place.root / "there", place.root / "here" / "results"
    number = place.target.submit(fakes.job("0"))
    list(place.target.follow(number))
    for name in ("trials/part-00000.parquet", "steps/part-00000.parquet", "study.yaml"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(name.encode() * 10_000)
    expected = sum(map(len, files(there).values()))
    counts = []
    for content in (b"trials/part-00000.parquet" * 10_000, b"more", b"more"):
        (there / "trials" / "part-00000.parquet").write_bytes(content)
        counts.append(place.target.fetch(number, str(there), here))
        for path in files(here):
            assert path.name == ".mirror" or path.read_bytes() == (there / path.relative_to(here)).read_bytes()
    assert counts == ([0, 0, 0] if place.kind.to == "slurm" else [expected, 4, 0])  # on a disk that is shared
    assert place.target.state(number) is State.DONE


def test_an_answer_about_a_job_that_is_not_there(place: Place) -> None:
    place.target.submit(fakes.job("0"))
    assert place.target.state("4711") is State.UNKNOWN
    for number in ("4711", "../../etc", "", "a b", "--all"):
        try:
            assert place.target.state(number) is State.UNKNOWN
        except ClusterError as error:
            assert "\n" not in str(error)


def test_a_look(place: Place) -> None:
    line = place.target.look()
    assert line and "\n" not in line


@pytest.mark.parametrize("action", ["look", "submit"])
def test_nothing_is_there(place: Place, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fake.vanish(monkeypatch)
    with pytest.raises(ClusterError) as caught:
        place.target.look() if action == "look" else place.target.submit(fakes.job("0"))
    message = one_line(caught)
    assert message.startswith(("there is no ", "--to http://")) and message.count(": ") == 1
    assert action == "look" or place.kind.missing in message


def test_it_fails(place: Place) -> None:
    number = place.target.submit(fakes.job("0"))
    list(place.target.follow(number))
    place.fake.break_down("try another partition")
    for action in (place.target.look, lambda: place.target.submit(fakes.job("1", "other"))):
        with pytest.raises(ClusterError) as caught:
            action()
        assert "many lines: try another partition" in one_line(caught)


@pytest.mark.parametrize(("kind", "option"), [(name, bad) for name, kind in KINDS.items() for bad in kind.bad])
def test_options_that_are_wrong(kind: str, option: str) -> None:
    chosen = KINDS[kind]
    with pytest.raises(ClusterError) as caught:
        cluster.target(chosen.to, [*chosen.options, option])
    message = one_line(caught)
    assert message.startswith(f"--with {option.partition('=')[0]}=") and "expected" in message


def test_options_are_fixed(place: Place) -> None:
    with pytest.raises(FrozenInstanceError):
        place.target.requeue = True  # type: ignore[attr-defined]
    assert os.listdir(place.root / "home") == []


@pytest.mark.parametrize("place", ["slurm", "slurm-nodes", "aws", "rayjobs"], indirect=True)
def test_a_job_that_fails_says_how(place: Place) -> None:
    number = place.target.submit(fakes.job("3"))
    place.until(number, State.FAILED)
    assert "ends with: at " in place.target.why(number)
    assert "\n" not in place.target.why(number)


def test_a_job_that_is_done_says_nothing(place: Place) -> None:
    number = place.target.submit(fakes.job("0"))
    place.until(number, State.DONE)
    assert place.target.why(number) == ""
