"""The cluster's token is in nothing that we print, write, send or name a process by.

Examples: 60 tokens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import STUDIES, everything, results, steady

import cluster
from cluster import Bundle
from orchestrator import cli
from orchestrator.commands import doctor

TOKEN = "5ec4e7" * 10


@pytest.fixture(params=["variable", "file"])
def member(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a token around it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    else:
        (tmp_path / "home" / ".ray").mkdir(parents=True)
        (tmp_path / "home" / ".ray" / "auth_token").write_text(TOKEN)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_no_verb_shows_it_or_writes_it(member: Path, capfd: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ray", lambda: [])  # it starts a Ray; tests/cluster has one, and its logs
    results(member, STUDIES[0])
    for words in (["status", "study.yaml", "results=results"], ["fit", "study.yaml", "results=results"],
                  ["report", "study.yaml", "results=results"], ["doctor"], ["list"],
                  ["query", "results", "SELECT * FROM trials"]):
        assert cli.main(words) in (0, 2)
    out, err = capfd.readouterr()
    assert "would use the token in" in out and TOKEN not in out + err
    assert [name for name, content in everything(member).items() if TOKEN.encode() in (content or b"")] == []


@steady(60)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=8).filter(str.strip))
def test_where_it_is_says_never_what_it_is(tmp_path_factory: pytest.TempPathFactory, token: str) -> None:
    file = tmp_path_factory.getbasetemp() / "token"
    file.write_text(token, encoding="utf-8")
    for name, value in (("RAY_AUTH_TOKEN", token), ("RAY_AUTH_TOKEN_PATH", str(file))):
        with pytest.MonkeyPatch.context() as patch:
            for each in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
                patch.delenv(each, raising=False)
            patch.setenv(name, value)
            assert token not in cluster.token_source()


def test_it_does_not_travel_with_the_code(member: Path) -> None:
    bundle = Bundle.of({"study.yaml": b"study: x"})
    assert [name for name, content in bundle.files.items() if TOKEN.encode() in content] == []
    assert not [name for name in bundle.files if ".ray" in name]


def commands_with(word: str) -> list[str]:
    """The command lines of all processes here in which a word occurs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [command for command in found if word in command]


def test_no_process_is_named_by_it_and_no_error_says_it(member: Path) -> None:
    """Joining a cluster starts a process that tries first; what answers here is no head."""
    script = "import sys, cluster\ntry:\n with cluster.existing(sys.argv[1], cluster.Bundle({})): pass\n" \
             "except cluster.ClusterError as error: print(error)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        child = subprocess.Popen([sys.executable, "-c", script, address], stdout=subprocess.PIPE, text=True,
                                 stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2], start_new_session=True)
        lines: list[str] = []
        assert child.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(child.stdout or []))
        reader.start()
        until = time.monotonic() + 120
        while time.monotonic() < until and child.poll() is None:
            tried = [command for command in commands_with(address) if "rehearsal.py" in command]
            if tried:
                break
            time.sleep(0.05)
        named = commands_with(TOKEN)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        reader.join()
        child.stdout.close()
    assert tried and not named and TOKEN not in "".join(lines)
