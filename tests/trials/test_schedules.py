"""Schedules: each against torch's, at both ends, and packed against alone."""

from dataclasses import fields, replace

import pytest
import torch
from torch.func import vmap
from torch.optim import lr_scheduler

from trials.errors import UserError
from trials.fields import parse, real_names
from trials.schedules.base import SCHEDULES

torch.set_num_threads(1)
F64 = torch.float64


def make(name, **params):
    return parse(SCHEDULES.get(name, "here"), params, "here")


def factors(schedule, total):
    """The factor of each step of a run."""
    steps = torch.arange(total, dtype=F64)
    found = [schedule.factor(step, torch.tensor(total, dtype=F64)) for step in steps]
    assert all(factor.shape == () and factor.dtype == F64 for factor in found)
    return torch.stack(found).tolist()


def torch_s(total, build):
    """The learning rate of each step of torch's scheduler, with an optimizer of lr 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build(optimizer)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def linear(optimizer, steps):
    return lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)


def one_cycle(optimizer, total, peak, start, final):
    """Torch counts pct_start from one step before the first."""
    return lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=total, pct_start=(peak * (total - 1) + 1) / total, div_factor=1 / start,
        final_div_factor=start / final, cycle_momentum=False)


def growing(optimizer, total, start):
    optimizer.param_groups[0]["lr"] = start
    return lr_scheduler.ExponentialLR(optimizer, start ** (-1 / (total - 1)))


CASES = {
    "constant": ("constant", {}, lambda o, total: lr_scheduler.ConstantLR(o, factor=1.0)),
    "cosine": ("cosine", {}, lambda o, total: lr_scheduler.CosineAnnealingLR(o, total - 1)),
    "cosine final": ("cosine", {"final": 0.1}, lambda o, total: lr_scheduler.CosineAnnealingLR(o, total - 1, 0.1)),
    "step": ("step", {}, lambda o, total: lr_scheduler.StepLR(o, total // 3)),
    "step gamma": ("step", {"gamma": 0.5, "drops": 5}, lambda o, total: lr_scheduler.StepLR(o, total // 6, 0.5)),
    "one cycle": ("one_cycle", {}, lambda o, total: one_cycle(o, total, 0.3, 0.04, 4e-6)),
    "one cycle late": ("one_cycle", {"peak": 0.8, "start": 0.5, "final": 0.01},
                       lambda o, total: one_cycle(o, total, 0.8, 0.5, 0.01)),
    "lr range": ("lr_range", {}, lambda o, total: growing(o, total, 1e-5)),
    "lr range start": ("lr_range", {"start": 0.1}, lambda o, total: growing(o, total, 0.1)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("total", [6, 30, 300])
def test_against_torch(case, total):
    name, params, build = CASES[case]
    expected = torch_s(total, lambda optimizer: build(optimizer, total))
    assert factors(make(name, **params), total) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 3), (0.5, 15), (0.9, 27)])
@pytest.mark.parametrize(("name", "build"), [
    ("constant", lambda o, rest: lr_scheduler.ConstantLR(o, factor=1.0)),
    ("cosine", lambda o, rest: lr_scheduler.CosineAnnealingLR(o, rest - 1))])
def test_warmup_against_torch(name, build, warmup, steps):
    """The last step of the ramp is the first of the curve, so that they are steps - 1 and 31 - steps long."""
    expected = torch_s(30, lambda o: lr_scheduler.SequentialLR(
        o, [linear(o, steps), build(o, 31 - steps)], [steps - 1]))
    assert factors(make(name, warmup=warmup), 30) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_warmup_by_hand():
    assert factors(make("constant", warmup=0.4), 10) == [0.25, 0.5, 0.75, *[1] * 7]
    assert factors(make("constant", warmup=0.25), 10) == pytest.approx([0.4, 0.8, *[1] * 8], abs=1e-15)
    assert factors(make("step", warmup=0.5, drops=1, gamma=0.5), 8) == [0.25, 0.5, 0.75, 1, 1, 1, 0.5, 0.5]
    assert factors(make("constant", warmup=1.0), 4) == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(("name", "first", "last"), [
    ("constant", 1, 1), ("cosine", 1, 0.25), ("step", 1, 1 / 16), ("one_cycle", 0.125, 0.25), ("lr_range", 0.125, 1)])
def test_both_ends(name, first, last):
    given = {"final": 0.25, "gamma": 0.25, "start": 0.125}
    known = {field.name for field in fields(make(name))}
    schedule = make(name, **{key: value for key, value in given.items() if key in known})
    for total in (3, 50, 1001):
        found = factors(schedule, total)
        assert (found[0], found[-1]) == pytest.approx((first, last), rel=1e-12)
        assert max(found) == pytest.approx(1, rel=1e-3 if total > 100 else 0.2)


@pytest.mark.parametrize("name", SCHEDULES.classes)
@pytest.mark.parametrize("total", [1, 2, 3, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.45, 0.97, 1.0])
def test_factors_are_in_0_to_1_however_short_the_run(name, total, warmup):
    assert all(0 <= factor <= 1 for factor in factors(make(name, warmup=warmup), total))


def test_step_drops_on_time():
    for total in (30, 49, 300, 1001):
        for drops in (0, 1, 2, 6, 9):
            expected = [0.5 ** ((drops + 1) * step // total) for step in range(total)]
            assert factors(make("step", gamma=0.5, drops=drops), total) == expected
    found = factors(make("step", gamma=0.5, drops=1, warmup=0.07), 100)  # 0.07 * 100 > 7 in float64
    assert [step for step in range(100) if found[step] == 0.5] == list(range(53, 100))


LANES = {"warmup": [0.0, 0.25, 0.6], "final": [0.0, 0.1, 1.0], "gamma": [0.0, 0.1, 1.0], "peak": [0.2, 0.5, 0.9],
         "start": [1e-5, 0.1, 1.0]}


@pytest.mark.parametrize("name", SCHEDULES.classes)
def test_packed_is_alone(name):
    """Three lanes that differ in every real field and in the length of their run."""
    schedule, totals = make(name), [20, 13, 40]
    values = {key: LANES[key] for key in real_names(type(schedule))}
    alone = [factors(replace(schedule, **{key: value[lane] for key, value in values.items()}), totals[lane])
             for lane in range(3)]
    reals = {key: torch.tensor(value, dtype=F64) for key, value in values.items()}

    def factor(reals, total, step):
        return replace(schedule, **reals).factor(step, total)

    for step in range(min(totals)):
        packed = vmap(factor, in_dims=(0, 0, None))(
            reals, torch.tensor(totals, dtype=F64), torch.tensor(step, dtype=F64))
        assert packed.dtype == F64
        assert packed.tolist() == pytest.approx([lane[step] for lane in alone], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES.classes)
def test_documented(name):
    cls = SCHEDULES.classes[name]
    assert cls.__doc__ and all(field.metadata["help"] for field in fields(cls))


@pytest.mark.parametrize(("name", "params", "message"), [
    ("cosin", {}, r"^here: no schedule called 'cosin'; did you mean 'cosine'\?"),
    ("cosine", {"finall": 1}, r"^here.finall: no such key; did you mean 'final'\?"),
    ("cosine", {"warmup": 1.5}, r"^here.warmup: expected a number in \[0, 1\], got 1.5"),
    ("one_cycle", {"peak": 1}, r"^here.peak: expected a number in \(0, 1\), got 1"),
    ("lr_range", {"start": 0}, r"^here.start: expected a number in \(0, 1\], got 0"),
    ("step", {"drops": 1.5}, r"^here.drops: expected a whole number of at least 0, got 1.5"),
])
def test_bad_parameters(name, params, message):
    with pytest.raises(UserError, match=message):
        make(name, **params)
