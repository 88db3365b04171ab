"""Little of what a process may have; and readers that are killed, which harm neither results nor the next who reads."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import driving
import pytest
from conftest import Same
from support import COMMAND, Cli

SCARCE = {  # lines of a shell before the command
    "a store of 8 MB in memory": "mount -t tmpfs -o size=8m none /dev/shm",
    "small files": "ulimit -S -f 64",
    "few open files": "ulimit -S -n 256",
    "few bytes of memory to name": "ulimit -v 16000000",
    "files for nobody": "umask 777",
    "files for everybody": "umask 000",
    "no home": "export HOME=/nowhere",
    "a home that is a file": "export HOME=/dev/null",
    "hardly any environment": "for name in $(env | cut -d= -f1); do case $name in PATH) ;; *) unset $name; esac; done",
}
CLAIM = """analysis:
  - {claim: a higher rate leaves less loss, law: power, y: train_loss, x: lr, expect: {exponent: {below: 0}}}
"""


@pytest.mark.chaos
@pytest.mark.parametrize("scarce", SCARCE.values(), ids=SCARCE)
def test_a_run_with_little_is_the_same(scarce: str, small: Path, small_undisturbed: Path, same: Same,
                                       tmp_path: Path) -> None:
    script = f'{scarce}\nexec "$@"'
    driver = driving.start("run", small, f"results={tmp_path / 'results'}",
                           command=["unshare", "-m", "sh", "-c", script, "sh", *COMMAND])
    _, err = driving.ended(driver, 0)
    assert err == ""
    same(tmp_path / "results", small_undisturbed)


@pytest.mark.chaos
@pytest.mark.parametrize("words", [["report"], ["fit"], ["status"], ["query", "select * from layers"]],
                         ids=lambda words: words[0])
def test_a_reader_that_is_killed_changes_nothing(words: list[str], small_undisturbed: Path, cli: Cli, tmp_path: Path,
                                                 contents: Callable[[Path], dict[str, bytes]]) -> None:
    verb, *rest = words
    results, chance = tmp_path / "results", random.Random(verb)
    subprocess.run(["cp", "-r", small_undisturbed, results], check=True)
    study = (results / "study.yaml").read_text()
    (results / "study.yaml").write_text(study.replace("analysis: []", CLAIM))
    expected = cli(verb, results, *rest).stdout
    before = contents(results)
    for _ in range(10):
        reader = driving.start(verb, results, *rest)
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(chance.uniform(0.1, 2.0))
            raise subprocess.TimeoutExpired(verb, 0)  # it was done already
        driving.kill(reader)
    assert cli(verb, results, *rest).stdout == expected
    after = contents(results)
    assert set(after) == set(before)
    assert [name for name in before if name.endswith(".parquet") and after[name] != before[name]] == []


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """What a folder holds, by path."""
    return lambda folder: {str(path.relative_to(folder)): path.read_bytes()
                           for path in folder.rglob("*") if path.is_file()}
