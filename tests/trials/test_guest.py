"""A user's code is a guest: its trial's numbers are those of a plain loop, and it leaves nothing behind, neither in the
data set nor in the process."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trials import usercode
from trials.errors import UserError
from trials.guest import _SETTINGS, _read, each_as_guest, guest
from trials.measure import Measure
from trials.packs.pack import train_pack
from trials.rehearsal import equal_starts, rehearse
from trials.setup import load_data
from trials.spec import TrialSpec, parse_trial
from trials.tasks import own
from trials.trainer import train

torch.set_num_threads(1)

QUIET = Measure("ends", "none", "none", "none")
ALL = Measure("ends", "ends", "ends", "ends", "ends", "ends", "ends", "none", "ends")
ZOO = '''
import decimal, gc, io, logging, math, os, random, signal, socket, sys, threading
import numpy as np, torch
from torch import nn
from torch.nn import functional as F

def plain(s, o): return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(s), o))

class First(nn.Module):
    """Works in place on its input before anything else, or on a copy, as ``out of place`` says."""
    def __init__(self, s, o, how, copy):
        super().__init__()
        self.how, self.copy, self.body = how, copy, plain(s, o)
    def forward(self, x):
        x = x.clone() if self.copy else x
        if self.how == "sub": x -= 0.5
        if self.how == "abs": x.abs_()
        if self.how == "relu": F.relu(x, inplace=True)
        if self.how == "zero": x[..., :2] = 0
        if self.how == "view": x.flatten(1).mul_(2.0)
        return self.body(x)
def first(s, o, how="sub", copy=False): return First(s, o, how, copy)
def dropout(s, o): return nn.Sequential(nn.Dropout(0.5, inplace=True), *plain(s, o))

def rude(s, o):
    torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.use_deterministic_algorithms(True)
    torch.set_default_device("meta"); os.chdir("/"); os.environ["RUDE"] = "1"; sys.path.insert(0, "/rude")
    torch.manual_seed(0); np.random.seed(0); random.seed(0); np.seterr(all="raise")
    torch.set_flush_denormal(True); torch.set_printoptions(precision=2); np.seterrcall(print); np.setbufsize(1024)
    torch.utils.deterministic.fill_uninitialized_memory = False; gc.disable(); logging.disable(); os.umask(0o777)
    torch.sparse.check_sparse_tensor_invariants.enable(); decimal.getcontext().prec = 3; socket.setdefaulttimeout(1.0)
    signal.signal(signal.SIGINT, signal.SIG_IGN); sys.stderr = io.StringIO()
    torch.set_default_device("cpu")
    return plain(s, o)

class Draws(nn.Module):
    def __init__(self, s, o):
        super().__init__()
        self.body = plain(s, o)
    def forward(self, x):  # in evaluation too
        return self.body(x) * (1 + 0.1 * np.random.randn() + 0.1 * random.random() + 0.1 * torch.randn(()).item())
def draws(s, o): return Draws(s, o)
def scaled(s, o):
    body = plain(s, o)
    with torch.no_grad(): body[1].weight.mul_(np.random.rand() + random.random())
    return body

def lazy(s, o): return nn.Sequential(nn.Flatten(), nn.LazyLinear(9), nn.Tanh(), nn.LazyLinear(o))
def eager(s, o): return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(s), 9), nn.Tanh(), nn.Linear(9, o))
def nothing(s, o): return nn.Flatten()
def constant(s, o):
    torch.manual_seed(3)
    return plain(s, o)

class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y): return y.clone()
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope): return slope

class Odd(nn.Module):
    def __init__(self, s, o, how):
        super().__init__()
        self.body, self.how = plain(s, o), how
    def forward(self, x):
        y, how = self.body(x), self.how
        if how == "tuple": return y, x
        if how == "dict": return {"logits": y}
        if how == "half": return y.half()
        if how == "detached": return y.detach()
        if how == "nan": return y * math.nan
        if how == "some": return y * math.nan if len(x) > 16 else y  # neither in a check of few samples nor in a batch
        if how == "bare": y = (y - y.mean(0)) / (x.flatten(1)[:, :1] * 0).std(0) if self.training else y
        if how == "bare": return y
        if how == "exit": sys.exit("enough")
        if how == "once": return Once.apply(y)
def odd(s, o, how): return Odd(s, o, how)
def threaded(s, o):
    print("hello"); threading.Thread(target=print, args=("there",)).start()
    return plain(s, o)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "zoo.py").write_text(ZOO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    own.expect({})
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path


def trial(function: str, seed: int = 0, **changes: Any) -> TrialSpec:
    params = {key: changes.pop(key) for key in ("how", "copy") if key in changes}
    return parse_trial({"task": "digits", "model": {"name": f"zoo.py:{function}", **params},
                        "optimizer": {"name": "sgd", "lr": 0.1}, "budget": {"steps": 12}, "batch_size": 16,
                        "precision": "float64", "seed": seed, **changes})


def numbers(spec: TrialSpec, measure: Measure = QUIET) -> list[Any]:
    emitted = train(spec, measure)
    assert emitted.trial["status"] == "completed"
    times = {"elapsed", "wall_time"}
    rows = [*emitted.steps, *emitted.layers]
    return [{key: value for key, value in row.items() if key not in times} for row in rows]


def settings() -> list[Any]:
    return [_read(get) for get, _ in _SETTINGS]


# Data

@pytest.mark.parametrize("how", ["sub", "abs", "relu", "zero", "view"])
@pytest.mark.parametrize("task", [{"name": "digits"}, {"name": "gaussian_regression", "dim": 5, "fresh": True}])
def test_a_model_that_works_in_place_on_its_input_is_the_same_as_on_a_copy(how: str, task: dict[str, Any]) -> None:
    inplace, copying = (trial("first", how=how, copy=copy, task=task) for copy in (False, True))
    data = load_data(inplace, "cpu")
    before = data.x_train.clone(), data.x_test.clone()
    found = numbers(inplace, ALL)
    assert torch.equal(data.x_train, before[0]) and torch.equal(data.x_test, before[1])
    assert [{**row, "layer": None} for row in found] == [{**row, "layer": None} for row in numbers(copying, ALL)]


def test_and_so_it_is_twice_in_a_step_and_in_packs() -> None:
    sam = {"knobs": {"sam": {"rho": 0.05}}}
    assert numbers(trial("first", copy=False, **sam)) == numbers(trial("first", copy=True, **sam))
    specs = [trial("first", seed) for seed in range(3)]
    for spec, emitted in train_pack(specs, QUIET, "cpu", 3):
        assert emitted.trial["lanes"] == 3
        assert emitted.trial["test_loss"] == pytest.approx(train(spec, QUIET).trial["test_loss"], rel=1e-9)


def test_dropout_in_place_drops_nothing_of_the_data() -> None:
    before = load_data(trial("plain"), "cpu").x_train.clone()
    numbers(trial("dropout"))
    assert torch.equal(load_data(trial("plain"), "cpu").x_train, before)


# Settings and generators

def test_a_rude_model_changes_no_other_trial() -> None:
    alone, before, state = numbers(trial("plain"), ALL), settings(), np.random.get_state()[1].tolist()
    python, ours = random.getstate(), torch.get_rng_state()
    numbers(trial("rude"))
    assert sys.path.pop() == "/rude"  # what is added to the path stays, at its end
    assert settings() == before and torch.get_default_device().type == "cpu"
    assert np.random.get_state()[1].tolist() == state and random.getstate() == python
    assert torch.equal(torch.get_rng_state(), ours)
    assert numbers(trial("plain"), ALL) == alone


def test_everything_is_put_back_where_the_guest_fails() -> None:
    before = settings()
    with pytest.raises(ZeroDivisionError), guest(0, "x"):
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.autograd.set_detect_anomaly(True)
        torch.set_autocast_enabled("cpu", True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        torch.backends.mkldnn.enabled = False
        del os.environ["PATH"]
        sys.setrecursionlimit(12345)
        warnings.simplefilter("ignore")
        os.chdir("/")
        raise ZeroDivisionError
    assert settings() == before
    with pytest.raises(DeprecationWarning):
        warnings.warn("shown as before", DeprecationWarning, stacklevel=1)


def test_guests_draw_from_seed_and_purpose() -> None:
    def draw(seed: int, purpose: str) -> tuple[float, float, float]:
        with guest(seed, purpose):
            return torch.rand(()).item(), np.random.rand(), random.random()
    assert draw(0, "a") == draw(0, "a")
    assert len({number for drawn in (draw(0, "a"), draw(1, "a"), draw(0, "b")) for number in drawn}) == 9


def test_between_items_a_guest_is_out() -> None:
    def items() -> Iterator[str]:
        for _ in range(2):
            os.chdir("/")
            yield os.getcwd()
    here = os.getcwd()
    assert [(item, os.getcwd()) for item in each_as_guest(items(), 0, "x", "cpu", "m.py:f")] == [("/", here)] * 2


def test_numbers_of_a_model_that_draws_from_any_generator_are_its_seeds() -> None:
    for function in ("draws", "scaled"):
        first = numbers(trial(function))
        np.random.rand(7)
        assert numbers(trial(function)) == first != numbers(trial(function, seed=1))


def test_what_is_drawn_in_evaluations_does_not_shift_training() -> None:
    often = Measure("log", "none", "none", "none")
    assert numbers(trial("draws"), often)[-1] == numbers(trial("draws"), QUIET)[-1]


# Rehearsal

def refused(spec: TrialSpec, measure: Measure | None = None) -> str:
    with pytest.raises(UserError) as error:
        rehearse(spec, measure)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("how", "said"), [
    ("tuple", "gives a tuple; expected one tensor"), ("dict", "gives a dict; expected one tensor"),
    ("half", "gives an output of type torch.float16; expected torch.float64"), ("detached", "has no gradient"),
    ("nan", "the output of the model is not finite before any training"), ("exit", "SystemExit: enough"),
    ("some", "the output of the model is not finite before any training"),
    ("bare", "the output of the model is not finite before any training, in training mode"),
])
def test_models_that_cannot_be_trained_are_refused_in_one_line(how: str, said: str) -> None:
    assert said in refused(trial("odd", how=how))


def test_a_model_without_parameters_is_refused() -> None:
    assert "has no parameter to train" in refused(trial("nothing"))


def test_a_model_that_cannot_be_measured_is_refused() -> None:
    spec = trial("odd", how="once")
    rehearse(spec, QUIET)
    assert refused(spec, Measure(curvature="last")).startswith("measure.curvature: the model cannot be measured")


def test_a_rehearsal_measures_what_can_be_measured() -> None:
    before = load_data(trial("plain"), "cpu").x_train.clone()
    rehearse(trial("first"), Measure("ends", *["last"] * 9))
    assert torch.equal(load_data(trial("plain"), "cpu").x_train, before)


def test_a_model_that_was_never_sound_has_failed_and_one_that_training_spoils_has_diverged() -> None:
    emitted = train(trial("odd", how="some"), QUIET)
    assert (emitted.trial["status"], emitted.trial["diverged_step"]) == ("failed", None)
    assert "before any training" in str(emitted.trial["reason"])
    emitted = train(trial("odd", how="bare"), QUIET)  # normalizes by what does not vary
    assert (emitted.trial["status"], emitted.trial["reason"]) == (
        "failed", "the output of the model is not finite before any training, in training mode")
    wild = train(trial("plain", optimizer={"name": "sgd", "lr": 1e300}), QUIET)
    assert wild.trial["status"] == "diverged" and wild.trial["diverged_step"] > 0
    blown_up = train(trial("plain", knobs={"init_scale": {"gain": 1e308}}), QUIET)
    assert (blown_up.trial["status"], blown_up.trial["diverged_step"]) == ("diverged", 0)


def test_a_lazy_model_is_the_same_as_an_eager_one() -> None:
    rehearse(trial("lazy"))
    assert [row["train_loss"] for row in numbers(trial("lazy"))] == [
        row["train_loss"] for row in numbers(trial("eager"))]


def test_replicates_that_start_equal_are_seen() -> None:
    assert equal_starts(trial("constant"), (0, 1)) and not equal_starts(trial("plain"), (0, 1))
    assert not equal_starts(trial("constant"), (0,))


def test_what_a_model_prints_is_no_output(capsys: pytest.CaptureFixture[str]) -> None:
    rehearse(trial("threaded"))
    found = capsys.readouterr()
    assert not found.out and "hello" in found.err
