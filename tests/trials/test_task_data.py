"""Data of a user's own task: checked once, converted where they mean one thing, and the same each time."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trials import Data, usercode
from trials.errors import UserError
from trials.measure import Measure
from trials.spec import TrialSpec, parse_trial
from trials.streams import Stream
from trials.tasks import own
from trials.tasks.check import checked
from trials.tasks.fingerprint import fingerprint, same
from trials.trainer import train

X, LABELS = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])


def data(**changes: Any) -> Data:
    return replace(Data(X, LABELS, X[:3], LABELS[:3], 3), **changes)


def regression(**changes: Any) -> Data:
    return data(y_train=X.sum(1, keepdim=True), y_test=X[:3].sum(1, keepdim=True), classes=None, **changes)


@pytest.mark.parametrize("given", [
    data(x_train=X.numpy(), y_train=LABELS.numpy(), x_test=X.numpy()[:3], y_test=LABELS.numpy()[:3]),
    data(x_train=X.numpy()[::-1].copy()[::-1], y_train=LABELS.numpy().astype(">i4")),
    data(x_train=X.numpy().astype(np.longdouble), x_test=np.ma.masked_less(X.numpy()[:3], -1)),
    data(x_train=X.int(), x_test=X[:3].to(torch.uint8)), data(y_train=LABELS.int(), y_test=LABELS[:3].float()),
    data(y_train=LABELS[:, None], y_test=LABELS[:3, None].double()), data(classes=np.int64(3)),
])
def test_what_can_mean_one_thing_only_is_converted(given: Data) -> None:
    found = checked(given, "t")
    assert torch.equal(found.x_train.float(), X) and torch.equal(found.x_test.float(), X[:3])
    assert torch.equal(found.y_train, LABELS) and torch.equal(found.y_test, LABELS[:3])
    assert found.x_train.is_floating_point() and found.y_train.dtype == torch.int64 and found.classes == 3


def test_truth_values_are_two_classes_and_one_number_a_sample_is_a_column() -> None:
    assert checked(data(y_train=LABELS > 0, y_test=LABELS[:3] > 0, classes=2), "t").y_train.tolist() == [0, 1, 1] * 2
    found = checked(data(y_train=X.sum(1), y_test=X[:3].sum(1).numpy(), classes=None), "t")
    assert found.y_train.shape == (6, 1) and found.y_test.shape == (3, 1) and found.outputs == 1


def test_what_is_kept_is_a_copy() -> None:
    x = X.clone().requires_grad_()
    found = checked(data(x_train=x), "t")
    with torch.no_grad():
        x.zero_()
    assert torch.equal(found.x_train, X) and not found.x_train.requires_grad


def with_nan(x: Tensor, *index: int, value: float = float("nan")) -> Tensor:
    x = x.clone()
    x[index] = value
    return x


@pytest.mark.parametrize(("given", "said"), [
    (5, "must return trials.Data, got int"),
    (data(x_train=X.tolist()), "x_train: expected a torch tensor or a NumPy array of numbers, got list"),
    (data(x_train=np.array([["a"]])), "x_train: expected a torch tensor or a NumPy array of numbers, got array of <U1"),
    (data(x_train=X.to(torch.complex64)), "x_train: expected an ordinary tensor of real numbers"),
    (data(x_train=np.ma.masked_greater(X.numpy(), 10)), r"x_train has 1 masked values; fill them \(x\.filled\(0\)\)"),
    (data(x_train=torch.nested.nested_tensor([X, X], layout=torch.jagged)),
     r"ordinary tensor of real numbers, got torch.float32 \(nested\)"),
    (data(x_train=X.to_sparse()), "x_train: expected an ordinary tensor of real numbers"),
    (data(x_train=X[:5]), "x_train has 5 samples and y_train has 6"),
    (data(y_test=LABELS), "x_test has 3 samples and y_test has 6"),
    (data(x_test=X[:3, :1]), r"a sample of x_test has shape \(1,\), one of x_train \(2,\)"),
    (data(x_train=X[:, 0]), r"x_train has shape \(6,\) and so no features"),
    (data(x_train=X[:, :0]), r"x_train has shape \(6, 0\) and so no features"),
    (data(x_train=X[:0], y_train=LABELS[:0]), "the training set is empty"),
    (data(x_test=None), "x_test: expected a torch tensor or a NumPy array of numbers, got NoneType"),
    (data(y_train=LABELS + 1), r"y_train holds labels from 1 to 3, but with classes=3 they must be 0 to 2; the first "
                               r"outside is 3 at \[2\]"),
    (data(y_test=LABELS[:3] - 1), "y_test holds labels from -1 to 1"),
    (data(y_train=torch.eye(3)[LABELS]), r"y_train has shape \(6, 3\); .*y\.argmax\(1\)"),
    (data(y_train=LABELS + 0.5), r"y_train holds 0\.5 at \[0\], but labels of classes are whole numbers"),
    (data(classes=1), "classes must be a whole number of at least 2"),
    (data(classes=2.5), "classes must be a whole number of at least 2"),
    (data(x_train=with_nan(X, 3, 1)), r"x_train has 1 of 12 values that are not finite .*, first nan at \[3, 1\]"),
    (data(x_test=with_nan(X[:3], 2, 0, value=float("inf"))), r"x_test has 1 of 6 values .*, first inf at \[2, 0\]"),
    (data(x_train=with_nan(X.double(), 0, 0, value=1e39)), "x_train has 1 of 12 values"),
    (data(y_train=with_nan(LABELS.double(), 4)), r"y_train has 1 of 6 values .*, first nan at \[4\]"),
    (replace(regression(), y_test=with_nan(X[:3, :1], 1, 0)), r"y_test has 1 of 3 values"),
    (replace(regression(), y_test=X[:3]), r"a sample of y_test has shape \(2,\), one of y_train \(1,\)"),
    (replace(regression(), y_train=torch.zeros(6, 2, 2)), r"y_train has shape \(6, 2, 2\); a regression takes"),
    (data(fresh=lambda stream, n: X), r"fresh\(stream, 4\) must return a pair x, y"),
    (data(fresh=lambda stream, n: (X[:n, :1], LABELS[:n])), r"returns x of shape \(4, 1\); expected \(4, 2\)"),
    (data(fresh=lambda stream, n: (X[:n], LABELS[:n] + 9)), r"fresh\(stream, 4\): y_batch holds labels from 9 to 11"),
    (data(fresh=lambda stream, n: (torch.rand(n, 2), LABELS[:n])), "returns another batch for the same stream"),
    (data(fresh=lambda stream, n: 1 / 0), "ZeroDivisionError: division by zero"),
])
def test_everything_else_is_refused_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^t.*{said}") as error:
        checked(given, "t")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("nothing", [None, torch.empty(0)])
def test_without_a_test_set_its_columns_are_null(nothing: Any) -> None:
    found = checked(data(x_test=nothing if nothing is None else nothing[:, None], y_test=nothing), "t")
    assert len(found.x_test) == len(found.y_test) == 0 and found.x_test.shape[1:] == (2,)


def test_fresh_batches_are_converted_too() -> None:
    kept = X.double().numpy()
    found = checked(data(fresh=lambda stream, n: (kept[:n], LABELS[:n, None].int())), "t")
    assert found.fresh is not None
    x, y = found.fresh(Stream.of(0, "x"), 2)
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and y.shape == (2,)


# Fingerprints

def test_a_fingerprint_is_of_every_value_but_not_of_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = Data(torch.randn(2000, 30, generator=generator), torch.arange(2000) % 10,
                 torch.randn(100, 30, generator=generator), torch.arange(100) % 10, 10)
    mark = fingerprint(whole)
    assert same(mark, fingerprint(whole)) and len(mark) < 300
    earlier = " ".join(mark.split()[:9])  # without what is evened out
    assert same(earlier, mark) and same(mark, earlier)
    rounded = replace(whole, x_train=whole.x_train * (1 + 1e-7 * torch.randn(2000, 30, generator=generator)))
    assert mark != fingerprint(rounded) and same(mark, fingerprint(rounded))
    assert same(mark, fingerprint(replace(whole, x_train=whole.x_train.double())))
    for changed in (
            replace(whole, x_train=whole.x_train.roll(1, 0)), replace(whole, x_test=whole.x_test + 1e-3),
            replace(whole, y_train=whole.y_train.roll(1)), replace(whole, y_test=9 - whole.y_test),
            replace(whole, x_train=with_nan(whole.x_train, 1234, 5, value=0.1)), replace(whole, classes=11),
            replace(whole, x_train=whole.x_train[:-1], y_train=whole.y_train[:-1]),
            replace(whole, fresh=lambda stream, n: (whole.x_train[:n], whole.y_train[:n]))):
        assert not same(mark, fingerprint(changed))


@pytest.mark.parametrize(("place", "value"), [((slice(None), 0), 1.7e9), ((7, slice(None)), 1e12)])
def test_a_large_feature_or_an_outlier_hides_nothing(place: Any, value: float) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = Data(torch.randn(2000, 9, generator=generator), LABELS, X, LABELS, 10)
    whole.x_train[place] = value
    rounded = whole.x_train * (1 + 1e-7 * torch.randn(2000, 9, generator=generator))
    assert same(fingerprint(whole), fingerprint(replace(whole, x_train=rounded)))
    others = whole.x_train[:, 1:].roll(1, 1)
    for changed in (torch.cat([whole.x_train[:, :1], others], 1), with_nan(whole.x_train, 1234, 5, value=3.0)):
        assert not same(fingerprint(whole), fingerprint(replace(whole, x_train=changed)))


# A task in a file

@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TrialSpec]]:
    """A trial of a task of one's own, whose lines are given; ``x`` and ``y`` are what it returns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    path = list(sys.path)

    def written(lines: str, name: str = "t.py", **params: Any) -> TrialSpec:
        (tmp_path / name).write_text(
            "import os, random, numpy as np, torch, trials\nkept = torch.randn(40, 3)\n"
            f"def task(p=0):\n    y = torch.arange(40) % 2\n    {lines}\n"
            "    return trials.Data(x, y, x[:10], y[:10], 2)\n")
        usercode.search_in(tmp_path)
        return parse_trial({"task": {"name": f"{name}:task", **params}, "model": {"name": "mlp", "width": 4},
                            "optimizer": {"name": "sgd", "lr": 0.1}, "budget": {"steps": 3}, "batch_size": 8})
    own.expect({})
    yield written
    sys.path[:] = path
    own.expect({})


@pytest.mark.parametrize("lines", ["x = np.random.randn(40, 3)", "x = torch.randn(40, 3)",
                                   "x = torch.tensor([[random.random()] for _ in range(40)])", "x = kept"])
def test_a_task_that_draws_from_a_global_generator_is_the_same_each_time(
        task: Callable[..., TrialSpec], lines: str) -> None:
    spec = task(lines)
    marks = []
    for _ in range(2):
        np.random.rand(3)
        torch.rand(3)
        marks.append(fingerprint(own.load(spec.task)))
    assert marks[0] == marks[1] == own.of(spec.task) and own.train_size(spec.task) == 40
    own.expect({})  # another process
    assert fingerprint(own.load(spec.task)) == marks[0]


def test_a_task_that_keeps_its_tensors_and_changes_them_is_seen(task: Callable[..., TrialSpec]) -> None:
    spec = task("x = kept.add_(1.0)")
    first = own.load(spec.task)
    before = first.x_train.clone()
    with pytest.raises(own.Changed, match=r"^trial\.task: t\.py:task gave other data than before; a task must give the "
                                          r"same data .* seed every generator .* sort .* files") as error:
        own.load(spec.task)
    assert torch.equal(first.x_train, before) and "\n" not in str(error.value)


def test_a_task_that_builds_on_a_built_in_one_changes_it_for_nobody(task: Callable[..., TrialSpec]) -> None:
    spec = task("from trials.tasks.digits import Digits; d = Digits().data(); x = d.x_train[:40].sub_(5.0); y %= 2")
    first, second = (own.load(spec.task).x_train for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("lines", ["x = np.random.default_rng().normal(size=(40, 3))",
                                   "x = torch.full((40, 3), float(os.path.getsize('f.txt')))"])
def test_data_that_differ_from_what_another_process_saw_end_the_run(
        task: Callable[..., TrialSpec], lines: str, tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("one")
    spec = task(lines, p=3)
    own.load(spec.task)
    known = own.known()
    own.expect(known)
    (tmp_path / "f.txt").write_text("three")
    with pytest.raises(own.Changed, match=r"t\.py:task \(p 3\) gave other data"):
        own.load(spec.task)
    rows = [{"config": spec.canonical, "data": known[next(iter(known))]}, {"config": spec.canonical, "data": None}]
    own.compare(rows)
    with pytest.raises(own.Changed):
        own.compare([{"config": spec.canonical, "data": rows[0]["data"].replace("1", "2")}])


def test_a_fresh_batch_that_is_not_finite_is_not_what_training_did(task: Callable[..., TrialSpec]) -> None:
    spec = task("x = torch.randn(40, 3); return trials.Data(x, y, x, y, 2, fresh=lambda stream, n: (torch.where("
                "(u := stream.at(1).normal((n, 3))) > 1.9, float('nan'), u), (u[:, 0] > 0).long()))")
    emitted = train(spec, Measure("ends")).trial
    assert emitted["status"] == "failed" and emitted["diverged_step"] is None
    assert re.fullmatch(r"the task's fresh batch of step \d+ has values in x that are not finite numbers",
                        emitted["reason"])


def test_it_trains_without_a_test_set(task: Callable[..., TrialSpec]) -> None:
    spec = task("x = torch.randn(40, 3); return trials.Data(x, y, None, None, 2)")
    emitted = train(spec, Measure("ends", predictions="last"))
    assert emitted.trial["status"] == "completed" and emitted.trial["test_loss"] is None
    assert emitted.trial["train_loss"] is not None and emitted.steps[-1]["test_accuracy"] is None


def test_an_edited_task_is_imported_anew(task: Callable[..., TrialSpec]) -> None:
    spec = task("x = torch.ones(40, 3)")
    assert bool((own.load(spec.task).x_train == 1).all())
    own.expect({})
    spec = task("x = torch.full((40, 3), 2.0)")
    assert bool((own.load(spec.task).x_train == 2).all())
