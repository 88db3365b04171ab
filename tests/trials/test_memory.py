"""What a model remembers in Python: noticed, put back, and a reason to train such trials one by one."""

from __future__ import annotations

import array
import collections
import contextvars
import datetime
import enum
import functools
import threading
import weakref
from typing import Any, NamedTuple

import pytest
import torch
import zoo
from state_cases import alone, packed, trial
from test_buffers import Memory as Checkpoints
from torch import nn

from trials.measure import Measure
from trials.memory import Memory
from trials.packs import lanes as lanes_module
from trials.packs.pack import train_pack
from trials.packs.unfit import Unfit
from trials.setup import prepare
from trials.trainer import train

CHANGES = {
    "counter": "calls", "counts_every_call": "calls", "annealed": "temperature", "list_grows": "seen",
    "deep": "inside", "tensor_attribute": "tensor", "buffer_that_comes_late": "late", "of_a_torch_module": "drop.p",
    "of_the_class": "Net.calls_of_class", "of_the_file": "zoo.CALLS", "own_generator": "random",
    "iterator": "own, which no checkpoint can hold"}
QUIET = Measure("ends", "none", "none", "none")


@pytest.mark.parametrize("kind", CHANGES)
def test_a_model_that_changes_in_python_is_refused_by_a_pack(kind: str) -> None:
    with pytest.raises(Unfit) as error:
        packed([trial(kind, seed) for seed in range(3)], 1)
    what, _, more = CHANGES[kind].partition(", ")
    assert str(error.value).startswith(f"the model changes {what} as it trains") and more in str(error.value)


@pytest.mark.parametrize(("kind", "who"), [("numpy_draws", "NumPy"), ("python_draws", "Python")])
def test_a_model_that_draws_from_another_generator_is_refused_by_a_pack(kind: str, who: str) -> None:
    with pytest.raises(Unfit, match=f"the model draws random numbers from {who}"):
        packed([trial(kind, seed) for seed in range(3)], 1)


@pytest.mark.parametrize("kind", CHANGES)
def test_trials_of_one_worker_leave_each_other_nothing(kind: str) -> None:
    first = train(trial(kind, 1), QUIET).trial
    train(trial(kind, 0), QUIET)
    again = train(trial(kind, 1), QUIET).trial
    assert again["test_loss"] == first["test_loss"]


def test_a_warm_up_inside_the_model_is_that_of_a_buffer() -> None:
    """Once as a counter in Python, and once as a buffer, which packs can follow: the same factors, step by step."""
    counted, held = alone(trial("counter"), 30), alone(trial("warm_up_in_a_buffer"), 30)
    for name, value in held.params.items():
        torch.testing.assert_close(counted.params[name], value, rtol=1e-12, atol=0)
    lanes = packed([trial("warm_up_in_a_buffer", seed) for seed in range(2)], 30)
    torch.testing.assert_close(lanes.params["last.weight"][0], held.params["last.weight"], rtol=1e-9, atol=1e-12)


def test_evaluation_leaves_no_trace() -> None:
    spec = trial("counts_every_call", steps=30)
    often = train(spec, Measure("log", "log", "none", "none", activations="log"))
    assert often.trial["test_loss"] == train(spec, QUIET).trial["test_loss"]


def test_what_is_seen_late_begins_anew_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that comes to do otherwise by what is not seen in it: none of its trials is given back, and what was
    saved of them is dropped."""
    specs = [trial("moving_average", seed, steps=60 if seed else 9) for seed in range(4)]
    checkpoints, calls = Checkpoints(5), []
    net, average = type(prepare(specs[0], "cpu").network.module), zoo.Net.moving_average
    forward = lanes_module.Lanes._lane

    def otherwise(self: Any, *args: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:  # both check and recording are over
            monkeypatch.setattr(net, "moving_average", lambda self, h: 2.0 * average(self, h))
        return forward(self, *args)
    monkeypatch.setattr(lanes_module.Lanes, "_lane", otherwise)
    found = []
    with pytest.raises(Unfit, match="steps the model does otherwise than in its first"):
        for done in train_pack(specs, Measure("last", "none", "none", "none"), "cpu", 4, checkpoints):
            found.append(done)
    assert not found and not checkpoints.bytes


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k, self.table = 1, {"a": [1, 2.5, (True, None)], 3: {"x"}}
        self.name, self.weights = "n", [torch.ones(2)]


def test_values_come_back_as_they_were_and_in_place() -> None:
    module = Plain()
    memory, table, inner = Memory(module, set()), module.table, module.table["a"]
    before = memory.now()
    assert memory.changed(before) == []
    module.k, module.extra = 2, "new"
    inner.append(4)  # type: ignore[attr-defined]
    module.weights[0].add_(1.0)
    assert sorted(memory.changed(before)) == ["extra", "k", "table", "weights"]
    changes = memory.since(before)
    assert changes is not None
    memory.put_back(before)
    assert module.k == 1 and not hasattr(module, "extra") and module.table is table and table["a"] is inner
    assert inner == [1, 2.5, (True, None)] and module.weights[0].tolist() == [1.0, 1.0]
    memory.put(changes)
    assert module.k == 2 and module.extra == "new" and inner == [1, 2.5, (True, None), 4]
    assert module.weights[0].tolist() == [2.0, 2.0] and module.table[3] == {"x"}


class Mode(enum.Enum):
    FIRST, SECOND = 1, 2


class Pair(NamedTuple):
    left: list[int]
    right: int


def test_objects_that_cannot_be_told_come_back_themselves() -> None:
    module = Plain()
    module.mode, module.when, module.call = Mode.FIRST, datetime.date(2020, 1, 1), torch.relu
    module.pair, module.table = Pair([1], 2), collections.defaultdict(list)  # type: ignore[assignment]
    module.bytes, module.lock = bytearray(b"a"), threading.Lock()
    memory, (inner, _) = Memory(module, set()), module.pair
    before, checkpoint = memory.now(), memory.since(memory.now())
    assert checkpoint == {}
    module.mode, module.pair = Mode.SECOND, Pair(inner, 3)
    module.bytes.extend(b"b")  # type: ignore[operator]
    inner.append(2)
    module.table["new"].append(1)  # type: ignore[index, union-attr]
    changes = memory.since(before)
    assert changes is not None and changes.keys() == {"mode", "pair", "bytes", "table"}
    module.when, module.call = datetime.date(2021, 1, 1), torch.tanh
    assert memory.since(before) is None
    memory.put_back(before)
    assert memory.changed(before) == [] and module.mode is Mode.FIRST and Mode.FIRST.value == 1
    assert module.pair == ([1], 2) and module.pair.left is inner and module.call is torch.relu
    memory.put(changes)
    assert module.mode is Mode.SECOND and type(module.pair) is Pair and module.pair == ([1, 2], 3)
    assert module.table == {"new": [1]} and type(module.table) is collections.defaultdict and module.bytes == b"ab"


MOOD: contextvars.ContextVar[int] = contextvars.ContextVar("MOOD", default=0)


@functools.cache
def box() -> list[int]:
    """One list for all that ask."""
    return [0]


def test_what_holds_numbers_otherwise_comes_back() -> None:
    """Arrays of Python, views of memory, weak dictionaries, attributes of an enumeration, variables of a context or of
    a thread, and what a cache has given out."""
    module, key = Plain(), Plain()
    module.array, module.view = array.array("d", [1.0]), memoryview(bytearray(b"ab"))  # type: ignore[assignment]
    module.weak = weakref.WeakKeyDictionary({key: [1]})  # type: ignore[assignment]
    module.mode, module.mood, module.box, module.local = Mode.FIRST, MOOD, box, threading.local()
    box.cache_clear()
    held = box()
    memory = Memory(module, set())
    before = memory.now()
    module.array.append(2.0)  # type: ignore[operator]
    module.view[0] = 7  # type: ignore[index]
    module.weak[key].append(2)  # type: ignore[index]
    Mode.FIRST.count, module.local.x = 1, 1  # type: ignore[attr-defined, union-attr]
    MOOD.set(3)
    held[0] += 1
    assert {"array", "view", "weak", "mode", "mood", "local", "box"} <= set(memory.changed(before))
    memory.put_back(before)
    assert memory.changed(before) == [] and not hasattr(Mode.FIRST, "count") and not hasattr(module.local, "x")
    assert module.array.tolist() == [1.0] and bytes(module.view) == b"ab"  # type: ignore[attr-defined, arg-type]
    assert module.weak[key] == [1] and MOOD.get() == 0 and box() is held and held == [0]  # type: ignore[index]


def test_torchs_own_modules_are_not_looked_at() -> None:
    assert Memory(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), set()).now().values == {}
