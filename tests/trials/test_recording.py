"""Recordings replay what was recorded: memory that is shared, changed in place or made anew, and fused operations."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from trials.packs.graph import record
from trials.packs.recording import Recording

torch.set_num_threads(1)

aten = torch.ops.aten
Program = Callable[..., Sequence[Tensor]]


def numbers(seed: int, count: int = 1) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [0.6 * torch.randn(2, 3, 3, dtype=torch.float64, generator=draw) for _ in range(count)]


def replayed(program: Program, fixed: int = 2, rtol: float = 1e-12) -> Recording:
    """Replay a program of ``fixed`` tensors that last and one that is new each time, three times, against the program
    itself: what it returns, what it did to its arguments, and what it returned before."""
    example = numbers(0, fixed + 1)
    recording = record(program, example)
    ours, theirs = ([tensor.clone() for tensor in example[:fixed]] for _ in range(2))
    replay = recording.bind(ours)
    assert all(torch.equal(mine, tensor) for mine, tensor in zip(ours, example, strict=False))  # nothing has run
    past: list[tuple[Sequence[Tensor], Sequence[Tensor]]] = []
    for time in range(1, 4):
        [given], [same] = numbers(time), numbers(time)
        past += [(replay(given), program(*theirs, same)), ([*ours, given], [*theirs, same])]
        for found, expected in past:
            for mine, tensor in zip(found, expected, strict=True):
                torch.testing.assert_close(mine, tensor, rtol=rtol, atol=rtol)
                assert mine.stride() == tensor.stride()  # or views of it might not be what they were
    return recording


def names(recording: Recording) -> list[str]:
    return [str(call.op).removeprefix("aten.").partition(".")[0] for call in recording.calls]


# Memory

def test_fixed_inputs_are_changed_through_views_and_stay_so() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        p[0].view(-1)[2:5].add_(1.0)
        q.detach().transpose(1, 2).mul_(x)
        return [p + q]
    replayed(program)


READ: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda p: p * 2, "row": lambda p: p[1] * 2, "copy": lambda p: p.clone(), "sum": lambda p: p.sum(),
    "turned": lambda p: p.transpose(0, 1).exp(), "unbound": lambda p: p.unbind(1)[2] + 0,
    "split": lambda p: torch.unsafe_split(p, 2, 1)[0] * 2, "flat": lambda p: p.reshape(-1) * 2,
    "square": lambda p: torch.bmm(p, p), "relu": lambda p: p.relu()}
WRITE: dict[str, Callable[[Tensor, Tensor], object]] = {
    "all": lambda p, x: p.add_(x), "row": lambda p, x: p[1].add_(x[0]), "out": lambda p, x: torch.add(p, x, out=p),
    "zero": lambda p, x: p.zero_(), "split": lambda p, x: torch.unsafe_split(p, 2, 1)[0].add_(1.0),
    "list": lambda p, x: torch._foreach_add_([p[0], p[1]], 1.0),
    "places": lambda p, x: p.index_put_((torch.tensor([1]),), x[:1])}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
def test_what_is_made_of_something_that_changes_is_made_at_every_replay(
        read: Callable[[Tensor], Tensor], write: Callable[[Tensor, Tensor], object]) -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        before = read(p)
        write(p, x)
        return [before, read(p), q * before.sum()]
    replayed(program)


def test_what_depends_on_what_does_not_change_is_made_once() -> None:
    made = []

    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        p.add_(x)
        return [torch.tanh(q) + p]
    recording = replayed(program)
    tensors = numbers(0, 3)
    replay = recording.bind(tensors[:2])

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made.append(str(op))
            return op(*args, **(kwargs or {}))
    with Count():  # type: ignore[no-untyped-call]
        replay(tensors[2])
    assert made == ["aten.add_.Tensor", "aten.add.Tensor"]


MAKE: dict[str, Callable[[Tensor], Tensor]] = {
    "number": lambda p: torch.tensor(3.0, dtype=torch.float64), "like": torch.ones_like,
    "numbers": lambda p: torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), "new": lambda p: p.new_full((3,), 2.0),
    "zeros": lambda p: torch.zeros(2, 3, 3, dtype=torch.float64), "times 1": lambda p: aten.mul.Scalar(p, 1),
    "full": lambda p: torch.full((3,), 0.2, dtype=torch.float64), "product": lambda p: p * 1,
    "empty": lambda p: torch.empty(3, dtype=torch.float64).fill_(1.5),
    "range": lambda p: torch.arange(3.0, dtype=torch.float64)}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_what_is_made_inside_and_then_changed_is_new_at_every_replay(make: Callable[[Tensor], Tensor]) -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        kept, changed = make(p), make(p)
        changed.add_(1.0)
        changed.view(-1)[0].add_(x.sum())
        return [changed + x, kept + q, p]
    replayed(program)


def test_constants_are_taken_up() -> None:
    table, scale = numbers(7)[0], torch.tensor(0.3, dtype=torch.float64)

    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        p.sub_(scale * x)
        return [torch.bmm(table, x) + p, table[0], scale]
    assert len(replayed(program).constants) == 2


def test_a_source_that_changes_after_a_product_with_1() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        same, view = aten.mul.Scalar(p, 1), aten.mul.Scalar(q, 1).view(-1)
        p.add_(x)
        q.mul_(0.5)
        return [same, view]
    replayed(program)


def test_a_tensor_that_is_turned_in_place_is_not_followed() -> None:
    with pytest.raises(NotImplementedError, match="changed in place"):
        record(lambda p: [p.t_()], [torch.ones(2, 3)])


# Operations that become one

def test_products_and_sums_become_one_operation() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        p.add_(x * q)
        p.sub_(q * x)
        product = x * x
        product.add_(q)
        return [q + torch.bmm(p, x), q * x + p, product]
    assert sorted(names(replayed(program))) == ["addcmul"] * 2 + ["addcmul_"] * 2 + ["baddbmm"]


def test_what_is_scaled_and_added_to_in_place_is_one_operation() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        p.mul_(0.9).add_(x)
        q.mul_(0.5).add_(q)  # of what it has just become: left as it is
        return [p + q]
    assert names(replayed(program)) == ["add", "mul_", "add_", "add"]


def test_momentum_and_a_step_with_numbers_take_two_operations_a_matrix() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        gradient = (p * 0.01).add_(torch.bmm(x, x.transpose(1, 2)))
        q.mul_(0.9).add_(gradient)
        p.sub_(q * 0.1)
        return [p]
    assert names(replayed(program)) == ["transpose", "bmm", "add", "add", "add_"]

    def without_decay(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        gradient = torch.bmm(x, x.transpose(1, 2))
        q.mul_(0.9).add_(gradient)
        p.sub_(q * 0.1)
        return [p]
    assert names(replayed(without_decay)) == ["transpose", "baddbmm_", "add_"]


def test_what_is_made_twice_is_made_once_unless_it_has_changed() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        first, again = x.exp(), x.exp()
        before = p.exp()
        p.add_(1.0)
        return [first * again, before, p.exp(), torch.rand_like(q) - torch.rand_like(q) < 2.0]
    assert names(replayed(program)).count("exp") == 3


def overwritten(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product = p * x
    p.add_(1.0)
    return [q + product]


def overwritten_through_a_view(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product = torch.bmm(p.transpose(1, 2), x)
    p[0, 0].zero_()
    return [q + product]


def used_twice(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product = p * x
    return [q + product, product]


def seen_before_it_changes(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product = p * x
    view = product.view(-1)
    product.add_(q)
    return [view, product]


def another_view_of_the_sum(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    p.add_(p.transpose(1, 2) * x)
    q.sub_(q[:, :1].expand(2, 3, 3) * x)
    return [p + q]


def laid_out_otherwise(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product = p * x
    sum_ = product + q.transpose(1, 2)
    return [sum_.view(-1), sum_]


def wider_than_the_product(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product = p[:, :1] * x[:, :, :1]
    narrow = p[0, 0] * x[0, 0]
    return [q[0, 0] + product, q + narrow, torch.bmm(p[:1], x[:1]) + q]


def of_truth_values(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    positive = p > 0
    both = positive * (x > 0)
    return [q * (positive + both)]


def doubled(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product = p * x
    product.add_(product)
    return [product + product]


def weighted(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    return [torch.add(q, p * x, alpha=0.5), torch.sub(q, p * x), p * x - q]


def scaled_and_added_a_product_of_itself(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product, other = torch.bmm(p, x), torch.bmm(x, q.transpose(1, 2))
    p.mul_(0.9).add_(product)
    q.mul_(0.9).add_(other)
    return [p + q]


def scaled_before_it_changes(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
    product, whole = p * 0.5, torch.arange(18).view(2, 3, 3) * 2
    p.add_(1.0)
    return [q + product, q.sub_(product), whole + whole * 0.5]


@pytest.mark.parametrize("program", [
    overwritten, overwritten_through_a_view, used_twice, seen_before_it_changes, another_view_of_the_sum,
    scaled_and_added_a_product_of_itself, scaled_before_it_changes,
    laid_out_otherwise, wider_than_the_product, of_truth_values, doubled, weighted])
def test_a_sum_that_must_not_take_the_product_up(program: Program) -> None:
    replayed(program)


def test_a_product_that_grows_twice_and_is_changed_under_another_name() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        product = p * x
        product.detach().add_(q)
        product.add_(x)
        return [product]
    replayed(program)


# Operations left out

def test_views_that_change_nothing_and_transposes_turned_back_are_left_out() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        turned = p.transpose(1, 2).detach().transpose(-1, -2)
        other = q.transpose(0, 1).transpose(1, 2)
        return [turned.view(2, 3, 3).expand(2, 3, 3) + other.sum() + x.sum().transpose(0, 0).transpose(0, 0)]
    assert names(replayed(program)) == ["transpose", "transpose", "sum", "add", "sum", "add"]  # those of q


def test_what_nobody_uses_is_left_out_and_what_changes_an_input_is_not() -> None:
    def program(p: Tensor, q: Tensor, x: Tensor) -> list[Tensor]:
        torch.exp(x).sum()
        q[1].mul_(0.9)
        return [x.relu()]
    assert names(replayed(program)) == ["select", "mul_", "relu"]


# Random programs

ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "tanh": torch.tanh, "detach": Tensor.detach, "flat": lambda a: a.view(-1),
    "cube": lambda a: a.view(2, 3, 3), "turn": lambda a: a.transpose(-1, -2), "turn0": lambda a: a.transpose(0, -1),
    "same": lambda a: a.expand(a.shape), "wide": lambda a: a.expand(2, 3, 3), "row": lambda a: a[0],
    "column": lambda a: a[..., 1:2], "sum": lambda a: a.sum(0), "times1": lambda a: aten.mul.Scalar(a, 1),
    "reshape": lambda a: a.reshape(2, 3, 3), "zeros": torch.zeros_like, "clone": Tensor.clone,
    "number": lambda a: torch.tensor(0.7, dtype=torch.float64), "split": lambda a: a.split(2, -1)[0],
    "scaled": lambda a: a * 0.7,
    "unsafe": lambda a: torch.unsafe_split(a, 2, -1)[0], "diagonal": lambda a: a.diagonal(0, -1, -2)}
TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add, "mul": torch.mul, "sub": torch.sub, "bmm": torch.bmm, "max": torch.maximum,
    "bmm+": lambda a, b: a + torch.bmm(b, b), "half": lambda a, b: torch.add(a, b, alpha=0.5)}
CHANGE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add_": Tensor.add_, "sub_": Tensor.sub_, "mul_": Tensor.mul_, "copy_": Tensor.copy_,
    "zero_": lambda a, b: a.zero_(), "relu_": lambda a, b: a.relu_(), "decay_": lambda a, b: a.mul_(0.9).add_(b)}
OFTEN = ["mul", "add", "add_", "bmm+", "turn", "scaled", "bmm", "decay_"] * 3
Line = tuple[str, int, int]


def obey(line: Line, tensors: list[Tensor]) -> None:
    name, first, second = line
    if name in ONE:
        tensors.append(ONE[name](tensors[first]))
    elif name in TWO:
        tensors.append(TWO[name](tensors[first], tensors[second]))
    else:
        CHANGE[name](tensors[first], tensors[second])


def random_program(seed: int) -> Program:
    """Up to 20 lines, each of which works on one or two of the tensors there are, rather the newer; returns four."""
    draw, tensors = random.Random(seed), numbers(0, 3)
    lines: list[Line] = []
    while len(lines) < 20 and max(float(tensor.abs().sum()) for tensor in tensors) < 100.0:
        first, second = (max(0, len(tensors) - 1 - int(draw.expovariate(0.25))) for _ in range(2))
        line = (draw.choice([*ONE, *TWO, *CHANGE, *OFTEN]), first, second)
        try:
            obey(line, tensors)
            lines.append(line)
        except (RuntimeError, IndexError):  # the shapes do not allow it, or the memory
            continue
    returned = [draw.randrange(len(tensors)) for _ in range(3)] + [len(tensors) - 1]

    def program(*given: Tensor) -> list[Tensor]:
        tensors = list(given)
        for line in lines:
            obey(line, tensors)
        return [tensors[number] for number in returned]
    return program


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_random_programs(start: int) -> None:
    for seed in range(start, start + 20):
        replayed(random_program(seed), rtol=1e-9)
