"""A study file may say anything: it loads, or is refused in one line, soon and in little memory; it runs nothing and
writes nothing.

A study may name code of the user's own. ``run``, ``submit`` and ``plan`` run it, as a script would be: it is imported,
and a task called for the size of its training set; never Python's own library. ``status``, ``fit``, ``report``,
``query`` and ``list`` run none of it, nor does ``plan`` of a results folder, unless ``--trust`` says so.

Examples: 1,000 mutations, 150 overrides, and the named cases below.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import textwrap
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EXTREMES, KEYS, NET, STUDIES, everything, mutants, results, steady

from orchestrator import cli
from orchestrator.survey import survey
from search_spaces import Study, load_study
from search_spaces.yaml_text import MAX_NODES, dump, nodes
from trials import consent, usercode
from trials.errors import UserError

ROOT = Path(__file__).parents[2]
BASE = STUDIES[0]
SECONDS, MEGABYTES = 10, 600  # of CPU time for each, and of memory beyond what the libraries take, for all
CANARY = "canary"
DATA = """
import torch
from trials import Data
def make(noise=0.0):
    x, y = torch.linspace(0, 1, 2560).reshape(40, 8, 8), torch.arange(40) % 3
    return Data(x, y, x, y, classes=3)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def loaded(folder: Path, text: str, *overrides: str) -> Study | None:
    """The study; None if it is refused as it should be, and then in one line that is not long."""
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    try:
        return load_study(str(folder / "s.yaml"), overrides)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 2000
        assert str(error).startswith(f"{folder / 's.yaml'}: ")
        return None


def ids(study: Study) -> list[str]:
    return [spec.trial_id for spec in islice(study.trials(lambda ids: []), 20) if spec is not None]


def test_any_mutation_of_a_study_is_refused_in_a_line_or_is_a_study_that_loads_again(here: Path) -> None:
    outcomes = []

    @steady(1000)
    @given(mutants())
    def check(study: dict[str, Any]) -> None:
        found = loaded(here, dump(study))
        outcomes.append(found is None)
        if found is not None:
            again = loaded(here, found.resolved())
            assert again is not None and again.resolved() == found.resolved()
            assert ids(again) == ids(found)
            assert (again.size, again.column_types, again.axis_columns) == (
                found.size, found.column_types, found.axis_columns)

    check()
    assert len(outcomes) >= 1000 and 0.1 < sum(outcomes) / len(outcomes) < 0.95  # both happen


@steady(150)
@given(st.lists(st.tuples(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map(".".join),
                          st.sampled_from(EXTREMES).map(lambda value: dump(value).strip()) | st.text(max_size=12)),
                min_size=1, max_size=2))
def test_any_override_is_refused_in_a_line_or_taken(tmp_path_factory: pytest.TempPathFactory,
                                                    pairs: list[tuple[str, str]]) -> None:
    loaded(tmp_path_factory.getbasetemp(), dump(BASE), *(f"{key}={value}" for key, value in pairs))


def named(**keys: Any) -> str:
    return json.dumps({**BASE, **keys})


def task(name: str, **parameters: Any) -> str:
    return named(trial={**BASE["trial"], "task": {"name": name, **parameters}}, space={}, analysis=[])


LAUGHS = "a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n"
                                    for i in range(9))
BOMBS: dict[str, str] = {
    "billion laughs": LAUGHS, "deep lists": "[" * 100_000, "deep mappings": "{a: " * 100_000,
    "deep items": "- " * 400_000, "deep keys": "? " * 400_000, "merge keys": "study: x\n<<: {question: y}\n",
    "two of a key": "study: x\nstudy: y\n",
    "a long word": "study: " + "a" * 990_000, "a long file": named(question="a" * 10**8),
    "many items": "-\n" * 499_000, "many keys": "".join(f"a{i}:\n" for i in range(100_000)), "colons": ":" * 990_000,
    "quotes": '"' * 990_000, "anchors": "&" * 990_000,
    "a long interpolation": named(question="${a" + "[0]" * 330_000 + "}"),
    "many interpolations": named(analysis=["${trial.seed}"] * (MAX_NODES // 2)),
    "many values": named(space={"lr": [i / 7 for i in range(1, MAX_NODES)]}),
    "many axes": named(space={f"k{i}": [1] for i in range(MAX_NODES // 8)}),
    "many points": named(space={"lr": {"low": 1, "high": 2, "num": 10**6}}),
    "too many points": named(space={"lr": {"low": 1, "high": 2, "num": 10**9}}),
    "too many seeds": named(space={"seed": {"replicates": 10**9}}), "a long number": "study: x\nretries: " + "9" * 9000,
    "an infinite number": "study: x\nretries: 1e999", "huge numbers": named(trial={**BASE["trial"], "seed": 10**400}),
    **{f"the tag {tag}": f"study: {tag}" for tag in (
        '!!python/object/apply:os.system ["touch canary"]', "!!python/name:os.system", "!!python/module:os",
        '!!python/object/new:os.system ["touch canary"]', "!!set {a}", "!!binary aGk=", "!x y", "!!map [1]")},
    **{f"the code {name}": task(name, **parameters) for name, parameters in {
        "os:system": {"command": "touch canary"}, "subprocess:run": {"args": ["touch", "canary"]},
        "builtins:eval": {"source": "open('canary', 'w')"}, "builtins:exec": {"source": "open('canary', 'w')"},
        "builtins:open": {"file": "canary", "mode": "w"}, "pathlib:Path.touch": {"self": "canary"},
        "shutil:copy": {"src": "/etc/hostname", "dst": "canary"}, "runpy:run_path": {"path_name": "x"}, "sys:exit": {},
        "posix:system": {"command": "touch canary"}, "_posixsubprocess:fork_exec": {}, "importlib.util:x": {},
        "antigravity:geohash": {}, "this:c": {}, ":": {}, "::": {}, "..:x": {}, ".x:y": {}, "a b:c": {},
        "/etc/passwd:x": {}, "../x.py:f": {}, "/dev/zero.py:f": {}, "x" * 5000 + ".py:f": {}}.items()},
    **{f"the name {name[:12]!r}": named(study=name) for name in (
        "../x", "/etc/x", "a/../b", "..", ".", "-rf", "a\nb", "x" * 10_000, "a\u202eb", "é", "a ", "~",
        "$HOME", "a\\b")},
    **{f"a name with {code!r}": f'study: "a\\x{code}b"' for code in ("00", "1b", "07", "7f", "9b")},
    **{f"the model {name[:12]!r}": named(trial={**BASE["trial"], "model": name}) for name in (
        "../x", "/etc/x", "a\nb", "x" * 10_000, "\u202e", "mlp\u2028")},
    **{f"a question with {text}": named(question=text) for text in (
        "${oc.env:HOME}", "${oc.decode:x}", "${oc.create:[1]}", "${mine:x}", "in ${study}", "${env:HOME}", "\\${x}",
        "${question}", "${trial}", "${.}", "${..trial.nosuch}")},
}
FINE: dict[str, str] = {
    "10^12 trials": named(space={
        **{axis: {"low": 0.001, "high": 0.5, "num": 1000} for axis in ("lr", "dropout.p", "momentum")},
        "seed": {"replicates": 1000}}, analysis=[]),
    "a million seeds": named(space={"seed": {"replicates": 10**6}}, analysis=[]),
    "2^53 random trials": named(space={"lr": {"low": 0.1, "high": 1}}, design={"name": "random", "trials": 2**53},
                                analysis=[]),
    "2^53 suggestions at a time": named(space={"lr": {"low": 0.1, "high": 1}}, design={
        "name": "tpe", "trials": 2**53, "batch": 2**53}, analysis=[]),
    "a layer of 2^53": named(trial={**BASE["trial"], "model": {"name": "mlp", "width": 2**53}}),
    "a task of 2^53 samples": named(trial={
        **BASE["trial"], "task": {"name": "gaussian_regression", "samples": 2**53}, "budget": {"steps": 2**53}}),
}
CHILD = """
import json, resource, sys, time
from search_spaces import load_study
from trials.errors import UserError
for line in sys.stdin:
    name, text = json.loads(line)
    with open("s.yaml", "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)
    began = time.process_time()
    try:
        study = load_study("s.yaml")
        study.size, study.resolved()
        said = None
    except UserError as error:
        said = str(error)
    print(json.dumps([name, said, time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]),
          flush=True)
"""


def test_what_is_made_to_be_too_much_is_refused_soon_in_one_line_and_does_nothing(tmp_path: Path) -> None:
    cases = [("warm", named()), *FINE.items(), *BOMBS.items()]
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input="\n".join(map(json.dumps, cases)), capture_output=True, text=True,
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": "/nowhere"}, timeout=280,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120)))
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, done.stderr[-2000:]
    assert [answer[0] for answer in answers] == [name for name, _ in cases]
    first = answers[0][3]
    for name, said, seconds, memory in answers:
        assert (said is None) == (name in FINE or name == "warm"), (name, said)
        assert said is None or (len(said.splitlines()) == 1 and len(said) < 1200 and said.startswith("s.yaml: ")), name
        assert "/nowhere" not in str(said), name  # what HOME is
        assert seconds < SECONDS and memory - first < MEGABYTES * 1024, (name, seconds, memory - first)
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]  # no canary


@pytest.mark.parametrize("words", [
    ["plan"], ["run"], ["status"], ["fit"], ["report"], ["submit", "--to", "127.0.0.1:1"]], ids=lambda words: words[0])
@pytest.mark.parametrize("name", [
    "billion laughs", "the code os:system", "the name '../x'", "a question with ${oc.env:HOME}", "a name with '1b'",
    "the tag !!python/name:os.system"])
def test_the_command_line_says_so_with_status_2_and_writes_nothing(
        here: Path, words: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "s.yaml").write_text(BOMBS[name])
    before = everything(here)
    assert cli.main([words[0], "s.yaml", *words[1:]]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("phasesweep: ") and err.strip().isprintable()
    assert everything(here) == before


@pytest.mark.parametrize("where", ["", "nosuch://x/y", "file://host/x", "x" * 5000])
def test_results_that_are_no_place(here: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "s.yaml").write_text(named())
    before = everything(here)
    assert cli.main(["status", "s.yaml", f"results={where}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("phasesweep: ")
    assert everything(here) == before


def own(here: Path) -> Study:
    """results/ and study.yaml of a study with a task and a model of its own, whose code leaves a canary wherever it
    runs, in the working directory, beside the study file and in the results folder."""
    study = results(here, {**STUDIES[2], "trial": {**STUDIES[2]["trial"], "task": {"name": "data.py:make"}},
                           "space": {"width": [4, 8], "gain": [0.5, 1], "model": ["net.py:build"], "seed": [0]},
                           "analysis": [{"claim": "x", "trend": "test_loss", "over": "model_width",
                                         "expect": {"rank_correlation": {"below": 0}}}]})
    for folder in (here, here / "results"):
        for file, text in (("net.py", NET), ("data.py", DATA)):
            (folder / file).write_text(f"open({str(here / CANARY)!r}, 'w').close()\n{text}")
    for name in [name for name in sys.modules if name.startswith("_usercode_")]:
        del sys.modules[name]
    return study


LOOKING = [["query", "SELECT count(*) FROM trials"], ["status"], ["fit"], ["report"], ["plan"], ["plan", "seed=[0,1]"],
           ["status", "trial.model.words=[c]"]]


def test_looking_at_results_runs_nothing_that_they_name(
        here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data.py").write_text(DATA)
    study = own(here)
    size, ids_of_all = study.size, ids(study)

    def looks(name: str, verbs: list[list[str]] = LOOKING) -> str:
        for verb, *more in verbs:
            words = [verb, name, *(f"space.{word}" if word.startswith("seed") else word for word in more)]
            assert cli.main(words) == 0, words
            assert not (here / CANARY).exists(), words
        return capsys.readouterr().out

    for place, names in ((here, ["results", "results/", str(here / "results"), (here / "results").as_uri()]),
                         (here / "results", ["."]), (here.parent, [f"{here.name}/results"])):
        monkeypatch.chdir(place)
        for name in names:
            said = looks(name)
            assert f"to run     0 of {size}" in said and "not timed: that runs data.py:make, net.py:build" in said
    monkeypatch.chdir(here)
    for words in (["study.yaml", "results=results"], ["results/study.yaml", "results=results"]):
        for verb in ("status", "fit", "report"):  # nor does a study's own file, where nothing is to be trained
            assert cli.main([verb, *words]) == 0 and not (here / CANARY).exists(), words
    assert cli.main(["plan", "results/study.yaml", "results=results"]) == 0 and not (here / CANARY).exists()
    for words in (["list", "studies"], ["list", "models"], ["cancel", "study.yaml"]):
        assert cli.main(words) == (2 if words[0] == "cancel" else 0) and not (here / CANARY).exists()
    for file in (*here.glob("*.py"), *(here / "results").glob("*.py")):
        file.rename(file.with_suffix(".gone"))
    assert f"to run     0 of {size}" in looks("results")  # they were sent without the code
    with consent.untouched():
        assert ids(load_study("results/study.yaml")) == ids_of_all


@pytest.mark.parametrize("words", [
    ["status", "results", "--trust"], ["fit", "results", "--trust"], ["plan", "results", "--trust"],
    ["plan", "study.yaml", "results=results"], ["run", "study.yaml", "results=results"], ["run", "results"]])
def test_it_runs_where_one_says_so(here: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data.py").write_text(DATA)
    own(here)
    assert cli.main(words) == 0
    assert (here / CANARY).exists()


def test_what_cannot_be_told_without_the_code_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bare name takes what its function takes of the trial's parameters."""
    (here / "net.py").write_text("build = lambda *shape: 0")
    (here / "s.yaml").write_text(named(trial={**STUDIES[2]["trial"]}, space={"model": ["net.py:build"]}, analysis=[]))
    assert cli.main(["status", "s.yaml"]) == 2
    assert "what net.py:build takes cannot be told without running it" in capsys.readouterr().err
    with consent.untouched(), pytest.raises(UserError, match="is the study's own code"):
        usercode.load("net.py:build", "here")
    assert consent.may_run()


def test_what_a_study_is_written_out_to_can_be_read_back(here: Path) -> None:
    """The two limits are one: a run writes its study with all values, and others read that."""
    most = loaded(here, named(space={"lr": {"low": 0.001, "high": 1, "num": MAX_NODES - 200}}, analysis=[]))
    assert most is not None and nodes(most.plain) <= MAX_NODES
    assert loaded(here, most.resolved()) is not None
    seeds = loaded(here, named(space={"seed": {"replicates": 10**6}}, analysis=[]))
    assert seeds is not None and len(seeds.resolved()) < 5000 and len(seeds.seeds) == 10**6


def test_where_is_data_and_no_expression(here: Path) -> None:
    """There is nothing that evaluates text: what a claim says of a column's value is compared with it."""
    claim = {"claim": "x", "trend": "test_loss", "over": "lr", "expect": {"rank_correlation": {"below": 0}}}
    hostile = textwrap.dedent("@__import__('os').system('touch canary')")
    for where in ({"device": hostile}, {"device": [hostile, "' or 1 = 1 --"]}):
        study = results(here, {**BASE, "analysis": [{**claim, "where": where}]})
        assert study.claims[0].where["device"][0] == hostile
        assert cli.main(["fit", "study.yaml", "results=results"]) == 0
    for where in (hostile, {hostile: 1}, {"optimizer": []}, {"optimizer": {"a": 1}}, {"lr": [[1]]}, {"lr": 10**30}):
        assert loaded(here, named(analysis=[{**claim, "where": where}])) is None
    assert not (here / CANARY).exists()


def test_a_design_that_never_ends_is_not_begun(tmp_path: Path) -> None:
    axes = "".join(f"  {name}: {{low: 0.1, high: 0.2, num: 1000}}\n" for name in ("lr", "momentum", "weight_decay"))
    path = tmp_path / "huge.yaml"
    path.write_text("study: huge\ntrial: {task: digits, model: mlp, optimizer: sgd, budget: {steps: 1}}\n"
                    f"space:\n{axes}")
    study = load_study(str(path))
    with pytest.raises(UserError, match="its design has 1,000,000,000 trials, of at most") as caught:
        survey(study, {}, lambda ids: [None] * len(ids))
    assert "\n" not in str(caught.value)
