"""Nothing that is read is ever unpickled or evaluated: no result, checkpoint, weight file or study brings code along.

The source is searched for what could, and the reading verbs run with an audit hook that sees every class a pickle asks
for.
"""

from __future__ import annotations

import ast
import io
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from strategies import STUDIES, results

from orchestrator.checkpoints import FolderCheckpoints
from orchestrator.folder import Folder
from trials.checkpoint import Checkpoint
from trials.spec import parse_trial

ROOT = Path(__file__).parents[2]
PACKAGES = ("trials", "search_spaces", "cluster", "analysis", "orchestrator")
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "code",
           "codeop", "runpy", "xmlrpc"}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
# yaml's loaders that make objects; pandas' and numpy's ways to evaluate or unpickle.
METHODS = {"unsafe_load", "full_load", "unsafe_load_all", "full_load_all", "UnsafeLoader", "FullLoader",
           "read_pickle", "to_pickle", "exec_module", "loads_pickle", "load_lua", "hub", "jit"}
ALLOWED = {
    ("trials/weightfiles.py", "import pickle"): "to tell the error of a file that is refused",
    ("orchestrator/tuning.py", "import pickle"): "the error of a worker, which Tune wrote into the driver's own folder",
    ("trials/packs/recording.py", "exec"): "lines made there, of numbered names alone",
    ("trials/usercode.py", "exec_module"): "the code that a study names",
}


def suspicious(file: Path) -> set[str]:
    """What in a file could run code from data."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = {name.split(".")[0] for name in [module, *(alias.name for alias in node.names)]}
            found |= {f"import {name}" for name in names & MODULES}
        elif isinstance(node, ast.Attribute) and node.attr in METHODS:
            found.add(node.attr)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {word.arg: word.value for word in node.keywords}
            if called in CALLS:
                found.add(called)
            if called.endswith("torch.load") and not _is(keywords.get("weights_only"), True):
                found.add("torch.load")
            if not _is(keywords.get("allow_pickle", ast.Constant(False)), False):
                found.add("allow_pickle")
            if called in ("yaml.load", "yaml.load_all", "pd.eval", "pandas.eval"):
                found.add(called)
    return found


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("package", PACKAGES)
def test_no_source_could_run_code_from_data(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        assert {what for what in suspicious(file) if (name, what) not in ALLOWED} == set(), name


def test_the_search_finds_what_it_should(tmp_path: Path) -> None:
    source = ("import pickle, joblib.x\nfrom cloudpickle import loads\nimport os\neval('1')\ntorch.load('x')\n"
              "torch.load('x', weights_only=False)\nnp.load('x', allow_pickle=True)\nyaml.load('x', yaml.FullLoader)\n"
              "pd.eval('x')\ntorch.load('x', weights_only=True)\nnp.load('x')\n")
    (tmp_path / "a.py").write_text(source)
    assert suspicious(tmp_path / "a.py") == {
        "import pickle", "import joblib", "import cloudpickle", "eval", "torch.load", "allow_pickle", "yaml.load",
        "FullLoader", "pd.eval"}


class Touch:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def as_pickle(path: Path) -> bytes:
    return pickle.dumps(Touch(path))


def as_old_pickle(path: Path) -> bytes:
    return pickle.dumps({"taken": Touch(path)}, protocol=0)


def as_torch(path: Path) -> bytes:
    sink = io.BytesIO()
    torch.save({"taken": 3, "params": Touch(path), "state": {}, "kept": {}, "generator": torch.get_rng_state(),
                "notes": "{}"}, sink)
    return sink.getvalue()


def as_old_torch(path: Path) -> bytes:
    sink = io.BytesIO()
    torch.save({"params": Touch(path)}, sink, _use_new_zipfile_serialization=False)
    return sink.getvalue()


def as_script(path: Path) -> bytes:
    sink = io.BytesIO()
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), sink)  # type: ignore[no-untyped-call]
    return sink.getvalue()


@pytest.mark.parametrize("make", [as_pickle, as_old_pickle, as_torch, as_old_torch, as_script])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_checkpoint_that_is_code_is_not_run_and_the_trial_begins_anew(make: object, sealed: bool,
                                                                        tmp_path: Path) -> None:
    spec = parse_trial({"task": "digits", "model": "mlp", "optimizer": "sgd", "budget": {"steps": 5}})
    folder, canary = Folder.open(tmp_path), tmp_path / "canary"
    data: bytes = make(canary)  # type: ignore[operator]
    if sealed:  # by somebody who knows how
        data = b"%08x" % zlib.crc32(data) + data
    folder.write("study.yaml", b"")
    folder.write(f".checkpoints/{spec.trial_id}", b"stamp\n" + data)
    assert FolderCheckpoints(folder, "stamp", 0.0).load(spec) is None
    assert Checkpoint.from_bytes(data) is None
    assert not canary.exists()
    if make is as_pickle:  # the same data do run where they are unpickled
        pickle.loads(data[8 * sealed:])
        assert canary.exists()


VERBS = """
import os, sys
root, weights, files = sys.argv[1], sys.argv[2], sys.argv[3:]
os.chdir(root)
import analysis, scipy.stats, sklearn, torch, pandas, duckdb, matplotlib.pyplot
from orchestrator import cli
from orchestrator.checkpoints import FolderCheckpoints
from orchestrator.folder import Folder
from orchestrator.store import Store
from search_spaces import load_study
from trials import records
from trials.checkpoint import Checkpoint
asked = []
def hook(event, args):
    if event.startswith(("pickle.", "marshal.loads", "os.system", "os.exec", "os.posix_spawn", "subprocess.")):
        asked.append((event, str(args[:2])[:200]))
study = load_study("study.yaml")
sys.addaudithook(hook)
Store.open(Folder.open("results"), records.schemas(study.column_types, study.axis_columns))
tables = analysis.load("results")
[getattr(tables, name) for name in records.TABLES]
for name in files:
    Checkpoint.from_bytes(open(name, "rb").read())
for words in (["status"], ["fit"], ["report"]):
    assert cli.main([*words, "study.yaml", "results=results"]) == 0
assert cli.main(["query", "results", "SELECT * FROM spectra"]) == 0
assert cli.main(["spectra", weights]) == 0
for name in files:
    assert cli.main(["spectra", name]) == 2
print("ASKED", [each for each in asked if each[0] != "marshal.loads" or "importlib" in each[1]])
"""


def test_no_reading_verb_asks_a_pickle_for_a_class(tmp_path: Path) -> None:
    results(tmp_path, STUDIES[0])
    torch.save({"fc.weight": torch.randn(40, 20)}, tmp_path / "w.pt")
    for make in (as_pickle, as_torch, as_old_torch):
        (tmp_path / f"{make.__name__}.pt").write_bytes(make(tmp_path / "canary"))
    hostile = [str(tmp_path / f"{make.__name__}.pt") for make in (as_pickle, as_torch, as_old_torch)]
    done = subprocess.run([sys.executable, "-c", VERBS, str(tmp_path), "w.pt", *hostile], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "ASKED []"
    assert not (tmp_path / "canary").exists()
