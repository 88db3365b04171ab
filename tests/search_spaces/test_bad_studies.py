from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from search_spaces import Study, load_study
from trials.errors import UserError
from trials.fields import real
from trials.knobs.base import KNOBS, Knob

Make = Callable[..., Study]
OPTIMIZERS = {"optimizer": ["sgd", "adam"]}


def refused(load: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("space", "key", "fix"), [
    ({"learning_rate": [1]}, "space.learning_rate", "no such key in the trial"),
    ({"batchsize": [1]}, "space.batchsize", "did you mean 'batch_size'?"),
    ({"optimzer.lr": [1]}, "space.optimzer.lr", "did you mean 'optimizer.lr'?"),
    ({"dropout.q": [1]}, "space.dropout.q", "did you mean 'dropout.p'?"),
    ({"dropout": [1]}, "space.dropout", "did you mean 'dropout.p'?"),
    ({"strength": [1]}, "space.strength", "no such key"),
    ({"optimizer.name": ["adam"]}, "space.optimizer.name", "no such key"),
    ({"": [1]}, "space.", "no such key"),
    ({"lr": {"valuess": [1]}}, "space.lr.valuess", "did you mean 'lr.values'?"),
    ({"lr": {"values": [1], "hihg": 3}}, "space.lr.hihg", "did you mean 'high'?"),
    ({"lr": None}, "space.lr", "expected values: [...]"),
    ({"lr": 0.1}, "space.lr", "expected values: [...]"),
    ({"lr": {}}, "space.lr.low", "missing; expected values: [...]"),
    ({"lr": []}, "space.lr.values", "expected at least one value"),
    ({"lr": {"values": 3}}, "space.lr.values", "expected a list, got 3"),
    ({"lr": [0.1, 0.2, 0.1]}, "space.lr.values[2]", "the same as values[0]"),
    ({"lr": [1, 1.0]}, "space.lr.values[1]", "the same as values[0]"),
    ({"lr": [-0.0, 0.0]}, "space.lr.values[1]", "the same as values[0], 0.0"),
    ({"batch_size": [2**53 + 1]}, "space.batch_size.values[0]", "most 2^53 = 9007199254740992, got 9007199254740993"),
    ({"width": [1e300]}, "space.width.values[0]", "at most 2^53 = 9007199254740992, got 1e+300"),
    ({"lr": {"values": [1], "scale": "log"}}, "space.lr", "listed values stand as they are, on any scale"),
    ({"lr": [0.1, 0.2, 0.3, "x"]}, "space.lr.values[3]", "expected a number of at least 0, got 'x'"),
    ({"lr": [-1]}, "space.lr.values[0]", "expected a number of at least 0"),
    ({"batch_size": [2.5]}, "space.batch_size.values[0]", "expected a whole number"),
    ({"batch_size": [True]}, "space.batch_size.values[0]", "expected a whole number"),
    ({"momentum": [1]}, "space.momentum.values[0]", "expected a number in [0, 1)"),
    ({"nesterov": ["yes"]}, "space.nesterov.values[0]", "expected true or false"),
    ({"precision": ["float23"]}, "space.precision.values[0]", "did you mean 'float32'?"),
    ({"precision": {"low": 1, "high": 2}}, "space.precision", "has no range; give values"),
    ({"lr": {"low": 1, "high": 1, "num": 2}}, "space.lr", "expected low below high"),
    ({"lr": {"low": 2, "high": 1, "num": 2}}, "space.lr", "expected low below high"),
    ({"lr": {"low": 0, "high": 1, "num": 2, "scale": "log"}}, "space.lr.low", "above 0 on a log scale"),
    ({"lr": {"low": -1, "high": 1, "num": 2}}, "space.lr.low", "expected a number of at least 0"),
    ({"lr": {"low": "a", "high": 1, "num": 2}}, "space.lr.low", "expected a number"),
    ({"lr": {"low": [1], "high": 2}}, "space.lr.low", "expected a number"),
    ({"lr": {"high": 1, "num": 2}}, "space.lr.low", "missing"),
    ({"lr": {"low": 0.1, "high": 1, "num": 1}}, "space.lr.num", "expected a whole number"),
    ({"lr": {"low": 0.1, "high": 1, "num": 2, "scale": "logg"}}, "space.lr.scale", "did you mean 'log'?"),
    ({"lr": {"low": 0.1, "high": 1}}, "space.optimizer.lr.num", "a grid needs the number of points"),
    ({"width": {"low": 1, "high": 5, "num": 9}}, "space.width.num", "give fewer"),
    ({"lr": {"values": [1], "low": 2}}, "space.lr", "give either values or low, not both"),
    ({"lr": {"replicates": 2}}, "space.lr.replicates", "only seed has replicates"),
    ({"seed": {"replicates": 0}}, "space.seed.replicates", "expected a whole number"),
    ({"seed": {"replicates": 2, "values": [1]}}, "space.seed", "not both"),
    ({"seed": {"low": 0, "high": 5}}, "space.seed", "expected replicates: N, or values"),
    ({"lr": [1], "optimizer.lr": [2]}, "space.optimizer.lr", "the same as space.lr"),
    ({"dropout.p": [0.1], "dropout": {"p": [0.2]}}, "space.dropout", "given twice; remove one"),
    ({**OPTIMIZERS, "momentum": [0.5]}, "space.momentum", "optimizer 'adam' has no momentum; remove the axis"),
    ({**OPTIMIZERS, "beta1": [0.5]}, "space.beta1", "optimizer 'sgd' has no beta1; remove the axis"),
    ({"beta1": [0.5]}, "space.beta1", "no such key in the trial"),
    ({"optimizer": ["sgd", "admm"]}, "space.optimizer.values[1]", "did you mean 'adam'?"),
    ({"optimizer": ["sgd", {"lr": 1}]}, "space.optimizer.values[1].name", "missing"),
    ({"optimizer": [{"name": "sgd", "lr": -1}]}, "space.optimizer.values[0].lr", "expected a number"),
    ({"optimizer": [3]}, "space.optimizer.values[0]", "expected a mapping"),
    ({"optimizer": ["sgd", {"name": "sgd", "lr": 0.1, "momentum": 0.9}]}, "space.optimizer.values[1]", "the same as"),
    ({"optimizer": ["sgd", {"name": "sgd", "lr": 3, "momentum": 0.9}], "lr": [1, 2]}, "space.optimizer.values[1]",
     "the same as values[0] once the other axes are put in"),
    ({"optimizer": {"low": 1, "high": 2}}, "space.optimizer", "expected values: [...], each a name"),
    ({"model": ["mlp", "nosuch.py:net"]}, "space.model.values[1]", "no file 'nosuch.py'"),
    ({"batch_size": [8, 2000]}, "space.batch_size", "at most 1347, the training samples of task digits, got 2000"),
    ({"budget.steps": [10]}, "space.budget", "either steps or epochs"),
    ({"budget.epochs": [0, 10]}, "space.budget", "either steps or epochs"),
    ({"task": ["digits", {"name": "gaussian_regression", "fresh": True}]}, "trial.budget.epochs", "give budget.steps"),
])
def test_a_bad_space_is_one_line_with_key_and_fix(make: Make, space: dict[str, Any], key: str, fix: str) -> None:
    message = refused(lambda: make(space=space))
    assert message.split(": ")[1] == key, message
    assert message.split(": ")[0].endswith("s.yaml")
    assert fix in message


@pytest.mark.parametrize(("override", "hint"), [
    ("lr=1e-3", "trial.optimizer.lr"), ("trial.lr=1e-3", "trial.optimizer.lr"), ("width=8", "trial.model.width"),
    ("trial.epochs=3", "trial.budget.epochs"), ("batch_size=8", "trial.batch_size"),
    ("replicates=3", "space.seed.replicates"), ("trial.rho=1", "trial.knobs.sam.rho"),
    ("p=0.1", "trial.knobs.dropout.p or trial.knobs.label_noise.p"),
])
def test_a_key_at_the_wrong_place_is_sent_to_its_own(make: Make, override: str, hint: str) -> None:
    assert refused(lambda: make(override)).endswith(f"no such key; did you mean {hint}?")


@dataclass(frozen=True)
class Twin(Knob):
    p: float = real(0.5, low=0, high=1, help="called as dropout's")


def test_an_ambiguous_key_names_the_candidates(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOBS.classes, "twin", Twin)
    message = refused(lambda: make("trial.knobs={dropout: {}, twin: {}}", space={"p": [0.1]}))
    assert "space.p: ambiguous; write knobs.dropout.p or knobs.twin.p" in message
    study = make("trial.knobs={dropout: {}, twin: {}}", space={"twin.p": [0.1]})
    assert study.axis_columns == ["twin_p"]


@pytest.mark.parametrize(("space", "overrides", "message"), [
    ({"samples": [16, 64]}, (), "trial.batch_size: expected at most 16, the training samples of task "
                                "gaussian_regression (task.samples 16), got 32"),
    ({"samples": [16, 64], "batch_size": [8, 16, 17]}, (), "space.batch_size: expected at most 16"),
    ({"samples": [64], "fresh": [False, True]}, ("trial.budget={epochs: 3}",), "trial.budget.epochs: task "
                                                                               "gaussian_regression (task.samples 64, "
                                                                               "task.fresh True) draws fresh samples"),
])
def test_values_that_do_not_go_together(make: Make, space: dict[str, Any], overrides: tuple[str, ...],
                                        message: str) -> None:
    trial = {"task": {"name": "gaussian_regression"}, "model": "mlp", "optimizer": "sgd", "budget": {"steps": 1}}
    assert message in refused(lambda: make(*overrides, trial=trial, space=space))


def test_a_batch_that_is_not_used_is_not_checked(make: Make) -> None:
    study = make("trial.batch_size=5000", space={"batch_size": [4, 1347]})
    assert study.size == 2


@pytest.mark.parametrize(("keys", "key", "fix"), [
    ({"desing": {}}, "desing", "did you mean 'design'?"),
    ({"results": "x"}, "results", "no such key"),
    ({"trial": None}, "trial", "expected a mapping"),
    ({"trial": 3}, "trial", "expected a mapping"),
    ({"trial": {}}, "trial.task", "missing"),
    ({"space": [1]}, "space", "expected a mapping"),
    ({"study": [1]}, "study", "expected text"),
    ({"study": None}, "study", "expected text"),
    ({"study": "../../etc"}, "study", "expected a name"),
    ({"study": "a/b"}, "study", "expected a name"),
    ({"study": ".."}, "study", "expected a name"),
    ({"study": "-rf"}, "study", "expected a name"),
    ({"study": ""}, "study", "expected a name"),
    ({"study": "x" * 101}, "study", "expected a name"),
    ({"study": "two\nlines"}, "study", "expected a name"),
    ({"study": "???"}, "study", "missing"),
    ({"question": {"a": 1}}, "question", "expected text"),
    ({"analysis": {"law": 1}}, "analysis", "expected a list"),
    ({"analysis": [3]}, "analysis[0]", "expected a mapping"),
    ({"analysis": [{"law": 1}]}, "analysis[0].law", "no law called '1'"),
    ({"analysis": [{"law": "power", "y": "stable_rnk"}]}, "analysis[0].y", "did you mean 'stable_rank'"),
    ({"design": "grid"}, "design", "expected a mapping"),
    ({"design": {"name": ["grid"]}}, "design.name", "expected one of grid, random, sobol, tpe"),
    ({"design": "???"}, "design", "expected a mapping"),
    ({"resources": "${study}"}, "resources", "expected a mapping"),
    ({"retries": "${..}"}, "retries", "expected an interpolation to be the whole value and a key"),
    ({"design": {"name": "gird"}}, "design.name", "did you mean 'grid'?"),
    ({"design": {"name": "grid", "trials": 3}}, "design.trials", "no such key"),
    ({"design": {"name": "random", "trials": 0}}, "design.trials", "expected a whole number"),
    ({"design": {"name": "random", "trials": 3}, "space": {"lr": [1, 2]}}, "design.trials", "expected at most 2"),
    ({"design": {"name": "tpe", "trials": 3}, "space": {"lr": [1, 2]}}, "design.trials", "expected at most 2"),
    ({"design": {"name": "sobol"}, "space": {"seed": [1, 2]}}, "space", "at least one axis beside seed"),
    ({"design": {"name": "tpe", "metric": "test_los"}}, "design.metric", "did you mean 'test_loss'?"),
    ({"design": {"name": "tpe", "mode": "minn"}}, "design.mode", "did you mean 'min'?"),
    ({"measure": {"weight": "log"}}, "measure.weight", "did you mean 'weights'?"),
    ({"measure": {"weights": "always"}}, "measure.weights", "expected one of none, last, ends, log"),
    ({"resources": {"cpu": 0}}, "resources.cpu", "expected a number in (0, 10000]"),
    ({"resources": {"gpu": -1}}, "resources.gpu", "expected a number in [0, 10000]"),
    ({"resources": {"cpu": 1e9}}, "resources.cpu", "expected a number in (0, 10000], got"),
    ({"resources": {"gpu": 1e9}}, "resources.gpu", "expected a number in [0, 10000], got"),
    ({"resources": {"gpus": 1}}, "resources.gpus", "did you mean 'gpu'?"),
    ({"device": "gpu"}, "device", "expected one of auto, cpu, cuda"),
    ({"retries": -1}, "retries", "expected a whole number"),
    ({"retries": 1.5}, "retries", "expected a whole number"),
    *(({"pack": value}, "pack", "expected auto, off, or a number of trials from 1 to 65536")
      for value in ("on", True, 0, -1, 2.5, 65537, None, [8])),
    ({"question": "${oc.env:HOME}"}, "question", "resolvers such as oc.env are not available"),
    ({"question": "in ${trial.seed} ways"}, "question", "expected an interpolation to be the whole value"),
    ({"question": "\\${x}"}, "question", "expected an interpolation to be the whole value"),
    ({"question": "${trial.nosuch}"}, "question", "${trial.nosuch} leads nowhere: Interpolation key"),
    ({"question": "${question}"}, "question", "${question} leads nowhere: Recursive"),
    ({"analysis": ["${trial}"]}, "analysis[0]", "expected ${trial} to name a single value"),
    ({"analysis": [{"${x}": 1}]}, "analysis[0]", "a key cannot hold an interpolation"),
])
def test_a_bad_top_level_is_one_line_with_key_and_fix(make: Make, keys: dict[str, Any], key: str, fix: str) -> None:
    message = refused(lambda: make(**keys))
    assert message.split(": ")[1] == key, message
    assert fix in message


@pytest.mark.parametrize(("override", "message"), [
    ("trial.optimizer.lr", "override 'trial.optimizer.lr': expected key=value"),
    ("=3", "override '=3': expected key=value"),
    ("a b=3", "override 'a b=3': expected key=value"),
    ("trial..seed=3", "expected key=value"),
    ("trail.seed=3", "override 'trail.seed=3': no such key; did you mean 'trial'?"),
    ("results=x", "override 'results=x': no such key"),
    ("trial.optimizer.lrr=3", "trial.optimizer.lrr: no such key; did you mean 'lr'?"),
    ("trial.optimizer.lr=x", "trial.optimizer.lr: expected a number of at least 0, got 'x'"),
    ("trial.optimizer.lr=", "trial.optimizer.lr: expected a number of at least 0, got None"),
    ("trial.optimizer.lr=[1", "override 'trial.optimizer.lr=[1': line 1"),
    ("trial.optimizer.lr={a: 1, a: 2}", "a: duplicate key"),
    ("space.batch_size.values[7]=3", "list index out of range"),
    ("space.batch_size.values.x=3", "there is a list on the way, of which [0] is the first item"),
    ("space.sead.replicates=5", "space.sead: no such key in the trial; did you mean 'seed'?"),
    ("question=${oc.env:HOME}", "question: expected an interpolation"),
    ("trial=3", "override 'trial=3': expected a mapping of keys to values, got 3"),
    ("study=a/b", "study: expected a name"),
])
def test_a_bad_override(make: Make, override: str, message: str) -> None:
    assert message in refused(lambda: make(override, space={"batch_size": [2]}))


def test_a_chain_of_interpolations_ends_in_a_line(make: Make) -> None:
    chain = [f"${{analysis[{i + 1}]}}" for i in range(3000)]
    assert re.search(r"analysis\[\d+\]: .* leads nowhere", refused(lambda: make(analysis=[*chain, 1])))


@pytest.mark.parametrize(("content", "message"), [
    (b"", "expected a mapping with the keys study, question"),
    (b"[1, 2]", "expected a mapping with the keys"),
    (b"study: a\nstudy: b", "line 2: study: duplicate key"),
    (b"study: \xff", "expected UTF-8 text, got byte 0xff at 7"),
    (b"study: [a", "line 1"),
    (b"a: &a [x, x]\nb: [*a, *a]", "line 2: aliases"),
    (b"study: !!python/name:os.system", "the tag"),
    (b"study: x\n" + b"#" * 1_000_000, "expected at most 1,000,000 bytes"),
])
def test_a_bad_file(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(content)
    text = refused(lambda: load_study(str(file)))
    assert text.startswith(f"{file}: ") and message in text


def test_no_such_study(tmp_path: Path) -> None:
    assert "did you mean 'batch_size_phases'?" in refused(lambda: load_study("batch_size_phase"))
    (tmp_path / "mine.yaml").write_text("study: x")
    assert f"no such file; did you mean '{tmp_path}/mine.yaml'?" in refused(lambda: load_study(f"{tmp_path}/mina.yaml"))
    assert "no such file; no YAML file is beside it" in refused(lambda: load_study("/nosuchfolder/x.yaml"))
    assert "no bundled study has this name" in refused(lambda: load_study(str(tmp_path)))
    assert "no bundled study" in refused(lambda: load_study(""))
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "pipe.yaml: a named pipe, expected a study file" in refused(lambda: load_study(str(tmp_path / "pipe.yaml")))
