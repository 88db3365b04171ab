"""Standard streams that are closed, full, of another encoding, or have nobody at their other end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import COMMAND

from orchestrator import streams

LIST = [*COMMAND, "list", "studies"]
FULL = "phasesweep: the standard output: No space left on device; the rest of it is lost\n"
# Verbs that stand for all: one that works, and says so before and after, and one that only prints.
WORKS = [sys.executable, "-c", """
import sys; from orchestrator import cli; from orchestrator.commands import list as verb
cli.PRINT_ONLY -= set(sys.argv[2:])
def main(args, console):
    for number in range(10_000):
        console.print(number)
    open(sys.argv.pop(), "x").close()
    return 1
verb.main = main
verb.add = lambda parser: parser.add_argument("words", nargs="*")
cli.console()
""", "list"]


def shell(command: list[str], redirected: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command under a redirection."""
    words = " ".join(f"'{word}'" for word in command)
    return subprocess.run(f"{words} {redirected}", shell=True, executable="/bin/bash", capture_output=True, text=True,
                          errors="replace", env={**os.environ, **environment}, timeout=120)


@pytest.mark.parametrize(("redirected", "status", "said"), [
    (">&-", 0, ""), ("2>&-", 0, ""), ("<&-", 0, ""), (">&- 2>&- <&-", 0, ""), (">/dev/full", 2, FULL),
    ("2>/dev/full", 0, ""), (">/dev/full 2>&1", 2, ""), ("| head -1; exit ${PIPESTATUS[0]}", 0, "")])
def test_a_verb_that_prints_ends_in_a_line_at_most(redirected: str, status: int, said: str) -> None:
    done = shell([*COMMAND, "list", "metrics"], redirected)
    assert (done.returncode, done.stderr) == (status, said)


def test_so_does_a_complaint_that_nobody_hears() -> None:
    for redirected in ("2>&-", ">&- 2>&-", "2>/dev/full"):
        assert shell([*COMMAND, "status", "no_such_study"], redirected).returncode == 2


@pytest.mark.parametrize(("redirected", "said"), [
    ("| head -1; exit ${PIPESTATUS[0]}", ""), (">&-", ""), (">/dev/full", FULL), (">&- 2>&-", "")])
def test_a_verb_that_works_goes_on_to_its_end(redirected: str, said: str, tmp_path: Path) -> None:
    done = shell([*WORKS, "list", str(tmp_path / "end")], redirected)
    assert (done.returncode, done.stderr) == (1, said)
    assert (tmp_path / "end").is_file()


def test_a_closed_number_is_not_given_to_a_file_and_ours_outlives_a_closed_one(tmp_path: Path) -> None:
    code = ("import os, sys; from orchestrator import streams\n"
            "streams.take_over(True); os.close(1); streams.keep_open()\n"
            f"file = open({str(tmp_path / 'rows')!r}, 'wb'); os.write(1, b'raw'); print('ours', file.fileno() > 2)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("ours True\n", "")
    assert (tmp_path / "rows").read_bytes() == b""


def test_a_remembered_one_is_opened_again_as_it_was() -> None:
    code = "import os; from orchestrator import streams; streams.remember(); os.close(2); streams.keep_open(); " \
           "os.write(2, b'back')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stderr == b"back"


def test_what_cannot_be_written_is_raised_once_or_never(tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        strict, lenient = streams.Output(full.fileno(), False), streams.Output(full.fileno(), True)
    with pytest.raises(OSError, match="No space left"):
        strict.write(b"a")
    assert strict.write(b"bc") == 2 and lenient.write(b"abc") == 3
    assert strict.error is not None and lenient.error is not None


@pytest.mark.parametrize("locale", [
    {"PYTHONUTF8": "0", "LC_ALL": "C"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}])
def test_every_locale_has_the_same_files_and_no_traceback(locale: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "Größe_λ"
    folder.mkdir()
    study = folder / "größe.yaml"
    study.write_text("study: s\nquestion: Wie groß ist λ ┃?\ntrial: {task: digits, model: mlp, optimizer: sgd, budget: "
                     "{steps: 2}}\nspace: {lr: [0.1]}\n", encoding="utf-8")
    done = shell([*COMMAND, "status", str(study), f"results={folder}"], "; exit $?", **locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1" in done.stdout
    assert os.listdir(os.fsencode(tmp_path)) == ["Größe_λ".encode()]


def test_a_name_that_is_not_utf8_is_refused() -> None:
    done = subprocess.run([*map(os.fsencode, COMMAND), b"status", b"tune_knobs", b"results=/tmp/\xfc"],
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"phasesweep: 'results=/tmp/\\udcfc' is not UTF-8, [^\n]+\n", done.stderr)
