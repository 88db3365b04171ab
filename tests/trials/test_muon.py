"""Muon against singular values, against a plain implementation, and against torch's, which computes in bfloat16."""

import math

import pytest
import torch

from trials.fields import parse
from trials.optimizers.base import OPTIMIZERS
from trials.optimizers.muon import orthogonalized

torch.set_num_threads(1)
F64 = torch.float64
SHAPES = {"tall": (12, 3), "wide": (4, 9), "kernel": (6, 2, 3, 3), "b": (4,), "s": ()}
# Steps of Muon do not shrink at a minimum: with a larger lr it is reached, and there rounding errors are amplified.
LR, DECAY, MOMENTUM = 0.005, 0.1, 0.8


def make(**params):
    return parse(OPTIMIZERS.get("muon", "here"), params, "here")


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def start():
    return {name: randn(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}


def gradient(p):
    """Of sum cos(3 w) + w^4 / 4, a little turned, so that singular vectors change from step to step."""
    return -3 * torch.sin(3 * p) + p**3 + 0.1 * p.flip(0) if p.ndim else p


def by_singular_values(matrix):
    """The five iterations on the singular values alone."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vt


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (5, 5), (1, 6), (6, 1), (40, 30)])
def test_the_iteration_acts_on_singular_values(shape):
    matrix = randn(*shape)
    torch.testing.assert_close(orthogonalized(matrix), by_singular_values(matrix), rtol=0, atol=1e-12)
    torch.testing.assert_close(orthogonalized(1e3 * matrix), orthogonalized(matrix), rtol=0, atol=1e-12)
    assert orthogonalized(0 * matrix).count_nonzero() == 0


def test_singular_values_end_near_1():
    s = torch.linspace(0.03, 1, 500, dtype=F64)  # so the normalized ones are from 0.002 to 0.08
    s = torch.linalg.svdvals(orthogonalized(torch.diag(s)))
    assert s.min() > 0.5 and s.max() < 1.3


def test_against_a_plain_implementation():
    """200 steps; vectors by torch's AdamW with the same decay."""
    ours, theirs = start(), start()
    optimizer = make(lr=LR, weight_decay=DECAY, momentum=MOMENTUM, vector_lr=0.5, vector_decay=2, beta1=0.8, eps=0.1)
    state = optimizer.init(ours)
    vectors = [theirs["b"].requires_grad_(), theirs["s"].requires_grad_()]
    adamw = torch.optim.AdamW(vectors, lr=0.5 * LR, weight_decay=2 * DECAY, betas=(0.8, 0.999), eps=0.1)
    buffers = {name: torch.zeros_like(p).flatten(1) for name, p in theirs.items() if p.ndim >= 2}
    for _ in range(200):
        optimizer.update(ours, {name: gradient(p) for name, p in ours.items()}, state)
        for name in buffers:
            g = gradient(theirs[name]).flatten(1)
            buffers[name] = MOMENTUM * buffers[name] + (1 - MOMENTUM) * g
            o = by_singular_values(MOMENTUM * buffers[name] + (1 - MOMENTUM) * g)
            size = LR * math.sqrt(max(1, g.shape[0] / g.shape[1]))
            theirs[name] = (1 - LR * DECAY) * theirs[name] - size * o.reshape(theirs[name].shape)
        for p in vectors:
            p.grad = gradient(p.detach())
        adamw.step()
    for name, p in start().items():
        assert (ours[name] - p).abs().max() > 0.1
        torch.testing.assert_close(ours[name], theirs[name].detach(), rtol=0, atol=1e-10)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch < 2.9 has no Muon")
@pytest.mark.parametrize("shape", [(12, 3), (4, 9), (16, 16)])
def test_against_torch(shape):
    """200 random gradients, each step from the same point, with a buffer of its own. Torch's iteration has the 8 bits
    of bfloat16, which is 1% of a step; no Nesterov, momentum 0.75 or weight decay 0.4 would be 8% or more."""
    ours, theirs = {"w": randn(*shape)}, randn(*shape).requires_grad_()
    optimizer = make(lr=LR, weight_decay=0.5, momentum=MOMENTUM)
    reference = torch.optim.Muon([theirs], lr=LR, weight_decay=0.5, momentum=MOMENTUM)
    state, errors = optimizer.init(ours), []
    for step in range(200):
        before = ours["w"].clone()
        theirs.data.copy_(before)
        theirs.grad = randn(*shape, seed=step)
        optimizer.update(ours, {"w": theirs.grad.clone()}, state)
        reference.step()
        errors.append(float((ours["w"] - theirs.detach()).norm() / (ours["w"] - before).norm()))
    assert sum(errors) / len(errors) < 0.02 and max(errors) < 0.05


def test_defaults_are_torch_s():
    ours, adamw = make(), torch.optim.AdamW([torch.zeros(1)]).defaults
    assert (ours.beta1, ours.beta2) == adamw["betas"] and ours.eps == adamw["eps"]
    if hasattr(torch.optim, "Muon"):
        theirs = torch.optim.Muon([torch.zeros(1, 1)]).defaults
        assert (ours.lr, ours.weight_decay, ours.momentum) == tuple(
            theirs[name] for name in ("lr", "weight_decay", "momentum"))


@pytest.mark.parametrize("names", [["b", "s"], ["tall", "kernel"]])
def test_vectors_alone_and_matrices_alone(names):
    """A model may have only one of the two groups; each moves as beside the other."""
    together, alone = start(), {name: p for name, p in start().items() if name in names}
    optimizer = make(lr=LR)
    states = optimizer.init(together), optimizer.init(alone)
    for _ in range(3):
        for params, state in zip((together, alone), states, strict=True):
            optimizer.update(params, {name: gradient(p) for name, p in params.items()}, state)
    assert all(torch.equal(alone[name], together[name]) for name in names)
    assert set(states[0]["square"]) == {"b", "s"}
