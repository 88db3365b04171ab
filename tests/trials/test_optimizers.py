"""Optimizers against torch's own, and packed against alone."""

from dataclasses import fields, replace

import pytest
import torch
from torch.func import vmap

from trials.errors import UserError
from trials.fields import parse, real_names
from trials.optimizers.base import OPTIMIZERS, global_norm

F64 = torch.float64
SHAPES = {"w": (4, 3), "b": (4,), "s": ()}


def make(name, **params):
    return parse(OPTIMIZERS.get(name, "here"), params, "here")


def start(seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g, dtype=dtype) for name, shape in SHAPES.items()}


def gradient(p):
    """Of sum cos(3 w) + w^4 / 4: neither convex nor quadratic, and with a scale that changes over the steps."""
    return -3 * torch.sin(3 * p) + p**3


def torch_s(cls, **params):
    return lambda groups: cls(groups, **params)


def shrinking(cls, independent, **params):
    """Torch's optimizer without decay, after shrinking the weights by hand."""
    class Shrinking(cls):
        def step(self):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        factor = group["lr"] / group["initial_lr"] if independent else group["lr"]
                        p.mul_(1 - factor * group["shrink"])
            super().step()

    return lambda groups: Shrinking([{**g, "weight_decay": 0, "shrink": g["weight_decay"]} for g in groups], **params)


SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
MOMENTUM, NESTEROV = {"lr": 0.01, "momentum": 0.9}, {"lr": 0.01, "momentum": 0.9, "nesterov": True}
# With a small eps Adam is unstable at the minimum it reaches here, and amplifies rounding errors.
BETAS = {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 0.1}
TORCH_BETAS = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 0.1}
CASES = {
    "sgd": ("sgd", {"lr": 0.01}, torch_s(SGD, lr=0.01)),
    "momentum": ("sgd", MOMENTUM, torch_s(SGD, **MOMENTUM)),
    "nesterov": ("sgd", NESTEROV, torch_s(SGD, **NESTEROV)),
    "sgd decoupled": ("sgd", {**MOMENTUM, "decay": "decoupled"}, shrinking(SGD, False, **MOMENTUM)),
    "sgd independent": ("sgd", {**MOMENTUM, "decay": "independent"}, shrinking(SGD, True, **MOMENTUM)),
    "nesterov decoupled": ("sgd", {**NESTEROV, "decay": "decoupled"}, shrinking(SGD, False, **NESTEROV)),
    "adam": ("adam", {}, torch_s(ADAM)),
    "adam betas": ("adam", BETAS, torch_s(ADAM, **TORCH_BETAS)),
    "adam decoupled": ("adam", {"decay": "decoupled"}, torch_s(ADAMW, lr=0.001)),
    "adam independent": ("adam", {**BETAS, "decay": "independent"}, shrinking(ADAM, True, **TORCH_BETAS)),
    "adamw": ("adamw", {}, torch_s(ADAMW)),
    "adamw betas": ("adamw", BETAS, torch_s(ADAMW, **TORCH_BETAS)),
    "adamw independent": ("adamw", {**BETAS, "decay": "independent"}, shrinking(ADAM, True, **TORCH_BETAS)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("schedule", [lambda step: 1.0, lambda step: 1.0 - step / 200], ids=["constant", "linear"])
@pytest.mark.parametrize(("weight_decay", "vector_lr", "vector_decay"), [(0.0, 1, 1), (0.3, 1, 1), (0.1, 2.0, 0.5)])
def test_against_torch(case, schedule, weight_decay, vector_lr, vector_decay):
    """200 steps; torch has two groups of parameters, and its schedule."""
    name, params, build = CASES[case]
    ours, theirs = start(), {key: p.requires_grad_() for key, p in start().items()}
    before = {key: p.clone() for key, p in ours.items()}
    optimizer = make(name, **params, weight_decay=weight_decay, vector_lr=vector_lr, vector_decay=vector_decay)
    reference = build([{"params": [theirs["w"]], "weight_decay": weight_decay},
                       {"params": [theirs["b"], theirs["s"]], "weight_decay": weight_decay * vector_decay,
                        "lr": optimizer.lr * vector_lr}])
    rates = torch.optim.lr_scheduler.LambdaLR(reference, schedule)
    state = optimizer.init(ours)
    for step in range(200):
        optimizer.scheduled(schedule(step)).update(ours, {key: gradient(p) for key, p in ours.items()}, state)
        for p in theirs.values():
            p.grad = gradient(p.detach())
        reference.step()
        rates.step()
    for key in SHAPES:
        assert (ours[key] - before[key]).abs().max() > 0.01
        assert torch.allclose(ours[key], theirs[key], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_defaults_are_torch_s(name):
    """Those that torch has; sgd's learning rate is a default of ours."""
    theirs = {"sgd": SGD, "adam": ADAM, "adamw": ADAMW}[name]([torch.zeros(1)]).defaults
    ours = make(name)
    betas = theirs.get("betas", (None, None))
    for field in fields(ours):
        expected = {"beta1": betas[0], "beta2": betas[1], "vector_lr": 1, "vector_decay": 1}.get(
            field.name, theirs.get(field.name))
        if field.name != "decay" and (name, field.name) != ("sgd", "lr"):
            assert getattr(ours, field.name) == expected


GROUPS = {"vector_lr": [1.0, 0.5, 3.0], "vector_decay": [1.0, 0.0, 2.0]}
ADAM_LANES = {"lr": [0.01, 0.02, 0.001], "weight_decay": [0.0, 0.1, 0.5], "beta1": [0.9, 0.0, 0.5],
              "beta2": [0.99, 0.9, 0.0], "eps": [1e-8, 1e-3, 0.1], **GROUPS}
LANES = {
    "sgd": {"lr": [0.01, 0.02, 0.0], "weight_decay": [0.0, 0.1, 0.5], "momentum": [0.9, 0.0, 0.5], **GROUPS},
    "adam": ADAM_LANES, "adamw": ADAM_LANES, "muon": {**ADAM_LANES, "momentum": [0.9, 0.0, 0.5]},
}
FACTORS = [1.0, 0.3, 0.0]  # of the schedule


@pytest.mark.parametrize(("name", "params"), [
    ("sgd", {}), ("sgd", {"decay": "decoupled"}), ("sgd", {"decay": "independent"}), ("sgd", {"nesterov": True}),
    ("adam", {}), ("adamw", {}), ("adamw", {"decay": "independent"}), ("muon", {}), ("muon", {"decay": "independent"})])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (torch.float32, 1e-5)])
def test_packed_is_alone(name, params, dtype, tolerance):
    """Three lanes that differ in every real field; warnings are errors, so no operation falls back to a loop."""
    optimizer = make(name, **params)
    values = LANES[name]
    assert set(values) == set(real_names(type(optimizer)))
    starts = [start(seed, dtype) for seed in range(3)]
    alone = []
    for lane, lane_params in enumerate(starts):
        own = replace(optimizer, **{key: value[lane] for key, value in values.items()}).scheduled(FACTORS[lane])
        p, state = {key: value.clone() for key, value in lane_params.items()}, own.init(lane_params)
        for _ in range(20):
            own.update(p, {key: gradient(value) for key, value in p.items()}, state)
        alone.append(p)

    def step(params, state, reals, factor):
        grads = {key: gradient(value) for key, value in params.items()}
        replace(optimizer, **reals).scheduled(factor).update(params, grads, state)
        return params, state

    packed = {key: torch.stack([lane[key] for lane in starts]) for key in SHAPES}
    state = vmap(optimizer.init)(packed)
    reals = {key: torch.tensor(value, dtype=F64) for key, value in values.items()}
    for _ in range(20):
        packed, state = vmap(step)(packed, state, reals, torch.tensor(FACTORS, dtype=F64))
    for lane in range(3):
        for key in SHAPES:
            assert packed[key].dtype == dtype
            assert torch.allclose(packed[key][lane], alone[lane][key], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS.classes)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_in_place_and_leaves_gradients_alone(name, as_tensor):
    optimizer = make(name, lr=0.1, weight_decay=0.1)
    if as_tensor:
        reals = {key: torch.tensor(getattr(optimizer, key), dtype=F64) for key in real_names(type(optimizer))}
        optimizer = replace(optimizer, **reals).scheduled(torch.ones((), dtype=F64))
    p = start(dtype=torch.float32)
    state = optimizer.init(p)
    tensors = [*p.values(), *(value for slot in state.values() for value in slot.values())]
    before = [value.clone() for value in tensors]
    shared = torch.ones(())
    grads = {key: shared.expand(shape) for key, shape in SHAPES.items()}  # one number behind all of them
    optimizer.update(p, grads, state)
    after = [*p.values(), *(value for slot in state.values() for value in slot.values())]
    assert all(old is new for old, new in zip(tensors, after, strict=True))
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert shared.item() == 1


@pytest.mark.parametrize(("decay", "matrix", "vector"), [
    ("coupled", 2 - 0.1 * (1 + 0.5 * 2), 2 - 0.4 * (1 + 1.5 * 2)),
    ("decoupled", 2 * (1 - 0.1 * 0.5) - 0.1 * 1, 2 * (1 - 0.4 * 1.5) - 0.4 * 1),
    ("independent", 2 * (1 - 0.25 * 0.5) - 0.1 * 1, 2 * (1 - 0.25 * 1.5) - 0.4 * 1),
])
def test_decay_by_hand(decay, matrix, vector):
    """One step from w = 2 with g = 1, lr 0.4 scheduled to a quarter, wd 0.5; vectors at 4 times the lr, 3 the wd."""
    p = {"w": torch.full((1, 1), 2.0, dtype=F64), "b": torch.full((1,), 2.0, dtype=F64)}
    optimizer = make("sgd", lr=0.4, weight_decay=0.5, decay=decay, vector_lr=4, vector_decay=3)
    optimizer.scheduled(0.25).update(p, {key: torch.ones_like(value) for key, value in p.items()}, optimizer.init(p))
    assert p["w"].item() == pytest.approx(matrix, abs=1e-15)
    assert p["b"].item() == pytest.approx(vector, abs=1e-15)


def test_bad_parameters():
    with pytest.raises(UserError, match=r"^here.decay: expected one of decoupled, independent, got 'coupled'"):
        make("adamw", decay="coupled")
    with pytest.raises(UserError, match=r"^here.momentum: expected a number in \[0, 1\), got 1"):
        make("sgd", momentum=1)
    with pytest.raises(UserError, match=r"^here: no optimizer called 'adamx'; did you mean 'adamw'\?|'adam'\?"):
        make("adamx")


def test_global_norm():
    assert global_norm({"a": torch.tensor([[3.0]]), "b": torch.tensor([0.0, 4.0]), "c": torch.tensor(12.0)}) == 13
