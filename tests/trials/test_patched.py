"""User code that changes what is torch's own is refused, and its neighbours' numbers are as alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trials import patched, usercode
from trials.errors import UserError
from trials.guest import put_back
from trials.measure import Measure
from trials.rehearsal import rehearse
from trials.spec import TrialSpec, parse_trial
from trials.tasks import own
from trials.trainer import train

QUIET = Measure("ends", "none", "none", "none")
ZOO = '''
import math, random
import numpy as np, torch
from torch import nn
from torch.nn import functional as F

forward = nn.Linear.forward
Linear = nn.Linear
def plain(s, o): return nn.Sequential(nn.Flatten(), Linear(math.prod(s), o))
def standardized(self, x): return F.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)
PATCHES = {
    "method": lambda: setattr(nn.Linear, "forward", standardized),
    "init": lambda: setattr(nn.Linear, "reset_parameters", lambda self: None),
    "new": lambda: setattr(nn.Linear, "__call__", standardized),
    "gone": lambda: delattr(nn.Dropout, "forward"),
    "function": lambda: setattr(F, "relu", torch.tanh),
    "filler": lambda: setattr(nn.init, "uniform_", nn.init.normal_),
    "class": lambda: setattr(nn, "Linear", nn.LazyLinear),
    "operator": lambda: setattr(torch, "matmul", torch.mul),
    "tensor": lambda: setattr(torch.Tensor, "mean", torch.Tensor.sum),
    "numpy": lambda: setattr(np, "sqrt", np.exp),
    "python": lambda: setattr(random, "random", lambda: 0.5),
    "hook": lambda: nn.modules.module.register_module_forward_hook(lambda module, x, y: 0.5 * y),
    "pre": lambda: nn.modules.module.register_module_forward_pre_hook(lambda module, x: None),
    "backward": lambda: nn.modules.module.register_module_full_backward_hook(lambda module, x, y: None),
}
def patching(s, o, how):
    PATCHES[how]()
    return plain(s, o)

class Late(nn.Module):
    def __init__(self, s, o):
        super().__init__()
        self.body = plain(s, o)
    def forward(self, x):
        nn.Linear.forward = standardized
        return self.body(x)
def late(s, o): return Late(s, o)
def task(): setattr(F, "relu", torch.tanh); raise SystemExit
'''
NAMES = {"method": "torch.nn.Linear.forward", "init": "torch.nn.Linear.reset_parameters",
         "new": "torch.nn.Linear.__call__", "gone": "torch.nn.Dropout.forward", "function": "torch.nn.functional.relu",
         "filler": "torch.nn.init.uniform_", "class": "torch.nn.Linear", "operator": "torch.matmul",
         "tensor": "torch.Tensor.mean", "numpy": "numpy.sqrt", "python": "random.random",
         "hook": "global hooks of modules (forward_hooks)", "pre": "global hooks of modules (forward_pre_hooks)",
         "backward": "global hooks of modules (backward_hooks)"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "zoo.py").write_text(ZOO)
    (tmp_path / "early.py").write_text("from torch import nn\nnn.Linear.forward = None\ndef plain(s, o): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    own.expect({})
    yield tmp_path


def trial(model: str = "mlp", **params: Any) -> TrialSpec:
    return parse_trial({"task": "digits", "model": {"name": model, **params}, "optimizer": {"name": "sgd", "lr": 0.1},
                        "budget": {"steps": 12}, "batch_size": 16, "precision": "float64", "seed": 0})


@pytest.mark.parametrize("how", NAMES)
def test_what_was_changed_is_named_and_put_back(how: str) -> None:
    before, alone = patched.snapshot(), train(trial(), QUIET).trial["test_loss"]
    for refused in (lambda: rehearse(trial("zoo.py:patching", how=how)),
                    lambda: train(trial("zoo.py:patching", how=how), QUIET)):
        with pytest.raises(UserError) as error:
            refused()
        assert str(error.value).startswith("trial.model.name: zoo.py:patching changes ")
        assert NAMES[how] in str(error.value) and "write a subclass" in str(error.value)
        assert patched.put_back(before) == []
    assert train(trial(), QUIET).trial["test_loss"] == alone


def test_a_model_that_changes_it_in_training() -> None:
    with pytest.raises(UserError, match=r"^trial: zoo\.py:late changes torch\.nn\.Linear\.forward"):
        train(trial("zoo.py:late"), QUIET)
    assert nn.Linear.forward.__module__ == "torch.nn.modules.linear"


def test_a_file_that_changes_it_when_it_is_imported() -> None:
    with pytest.raises(UserError, match=r"early\.py changes torch\.nn\.Linear\.forward"):
        train(trial("early.py:plain"), QUIET)


def test_what_fails_is_what_is_said_and_all_is_put_back() -> None:
    before = patched.snapshot()
    with pytest.raises(ZeroDivisionError), put_back():
        nn.Linear.forward = nn.Conv2d.forward  # type: ignore[method-assign, assignment]
        raise ZeroDivisionError
    assert patched.put_back(before) == [] and nn.Linear.forward.__qualname__ == "Linear.forward"


def test_modes_that_are_never_left_are_left() -> None:
    class Doubled(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {})) * 2 if func is torch.ones else func(*args, **(kwargs or {}))

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with put_back():
        Doubled().__enter__()
        Watching().__enter__()
    assert torch.ones(()).item() == 1.0 and torch._C._len_torch_dispatch_stack() == 0


def test_what_torch_does_to_itself_is_no_patch() -> None:
    """Its compiler, when it is first imported, and layers, tools and functions of all kinds."""
    before = patched.snapshot()
    with put_back():
        import torch._dynamo
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
        torch.func.vmap(torch.nn.functional.relu)(torch.randn(3, 3))
        nn.TransformerEncoderLayer(8, 2)(torch.randn(2, 2, 8))
        np.random.default_rng(0)
        random.seed(0)
    assert patched.put_back(before) == []
