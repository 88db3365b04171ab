"""Adapters, weights written in place and averaged weights have the singular values of the matrix in use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trials.in_use import WeightsInUse
from trials.matrices import matrices


def used(module, x):
    """Layer -> its singular values; the parameters and buffers are those of ``module``."""
    in_use = WeightsInUse(module, x)
    values = in_use({**dict(module.named_parameters()), **dict(module.named_buffers())})
    return {m.layer: svd(m.of(values)) for m in matrices(module, in_use.computed)}


def svd(matrix):
    return np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)


def agree(found, expected):
    assert list(found) == list(expected)
    for layer, matrix in expected.items():
        np.testing.assert_allclose(found[layer], svd(matrix), rtol=1e-5, atol=1e-5)


class Deep(nn.Module):
    """Affine, and of the shapes of an adapter, with and without a residual path."""

    def __init__(self, residual="none"):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 12), nn.Linear(12, 3), nn.Linear(3, 12)
        self.residual = residual

    def forward(self, x):
        first = self.fc1(x)
        low = self.fc3(self.fc2(first))
        return low + {"none": 0, "input": x, "first": first}[self.residual]


class Bottleneck(nn.Module):
    def __init__(self, residual):
        super().__init__()
        self.a, self.b, self.residual = nn.Linear(12, 3), nn.Linear(3, 12), residual

    def forward(self, x):
        return self.b(self.a(x)) + self.residual * x


@pytest.mark.parametrize("model", [Deep(), Deep("input"), Deep("first"), Bottleneck(0), Bottleneck(1),
                                   nn.Sequential(Deep(), nn.ReLU(), nn.Linear(12, 4))])
def test_products_of_layers_are_no_adapters(model):
    agree(used(model, torch.randn(2, 12)), {name: layer.weight for name, layer in model.named_modules()
                                            if isinstance(layer, nn.Linear)})


class FrozenBase(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("base", torch.randn(8, 12))
        self.a, self.b = nn.Parameter(torch.randn(2, 12)), nn.Parameter(torch.randn(8, 2))

    def forward(self, x):
        return x @ self.base.T + 3 * (x @ self.a.T) @ self.b.T


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.a, self.b = nn.Conv2d(2, 8, 3), nn.Conv2d(2, 1, 3, bias=False), nn.Conv2d(1, 8, 1, bias=False)

    def forward(self, x):
        return F.relu(self.base(x) + 3 * self.b(self.a(x)))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.head = nn.Embedding(17, 8), nn.Linear(8, 5)
        self.a, self.b = nn.Parameter(torch.randn(2, 17)), nn.Parameter(torch.zeros(8, 2))  # as LoRA begins

    def forward(self, x):
        return self.head(torch.tanh(self.base(x) + 0.5 * F.embedding(x, self.a.T) @ self.b.T))


def test_an_adapter_of_a_buffer():
    model = FrozenBase()
    agree(used(model, torch.randn(2, 12)), {"weight": model.base + 3 * model.b @ model.a})


def test_an_adapter_of_a_convolution():
    model = Conv()
    expected = model.base.weight.flatten(1) + 3 * model.b.weight.flatten(1) @ model.a.weight.flatten(1)
    agree(used(model, torch.randn(1, 2, 7, 7)), {"base": expected})


@pytest.mark.parametrize("filled", [False, True])
def test_an_adapter_of_an_embedding(filled):
    model, before = Embedded(), torch.get_rng_state()
    if filled:
        nn.init.normal_(model.b)
        before = torch.get_rng_state()
    found = used(model, torch.arange(17)[None])
    agree(found, {"base": model.base.weight + 0.5 * (model.b @ model.a).T, "head": model.head.weight})
    assert torch.equal(torch.get_rng_state(), before)


IN_PLACE = {
    "setitem": lambda w, mask: _into(lambda to: to.__setitem__(slice(None), w * mask)),
    "copy_": lambda w, mask: _into(lambda to: to.copy_(w * mask)),
    "copy_ into views": lambda w, mask: _into(lambda to: [to[k].copy_(w[k] * mask[k]) for k in range(8)]),
    "index_put_": lambda w, mask: _into(lambda to: to.index_put_((mask.bool(),), w[mask.bool()])),
    "out": lambda w, mask: _into(lambda to: torch.mul(w, mask, out=to)),
    "add_": lambda w, mask: _into(lambda to: to.add_(w * mask)),
    "scatter": lambda w, mask: torch.zeros(8, 12).scatter(1, torch.arange(12).expand(8, 12), w * mask),
    "where": lambda w, mask: torch.where(mask.bool(), w, 0.0),
    "stack": lambda w, mask: torch.stack([row * keep for row, keep in zip(w, mask, strict=True)]),
    "cat": lambda w, mask: torch.cat([w[:4] * mask[:4], w[4:] * mask[4:]]),
}


def _into(write):
    target = torch.zeros(8, 12)
    write(target)
    return target


@pytest.mark.parametrize("way", IN_PLACE)
def test_masked_weights_however_they_are_made(way):
    class Masked(nn.Linear):
        def __init__(self):
            super().__init__(12, 8)
            self.register_buffer("mask", (torch.rand(8, 12) > 0.5).float())

        def forward(self, x):
            return F.linear(x, IN_PLACE[way](self.weight, self.mask), self.bias)

    model = nn.Sequential(Masked(), nn.ReLU(), nn.Linear(8, 3))
    agree(used(model, torch.randn(2, 12)), {"0": model[0].weight * model[0].mask, "2": model[2].weight})


def test_the_average_that_is_used_in_evaluation_mode():
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 8)
            self.register_buffer("ema", torch.randn(8, 12))

        def forward(self, x):
            return F.linear(x, self.fc.weight if self.training else self.ema, self.fc.bias)

    model = Averaged()
    agree(used(model, torch.randn(2, 12)), {"fc": model.ema})
    assert model.training


def test_frozen_features_are_no_average():
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 12)
            self.register_buffer("random", torch.randn(12, 12))

        def forward(self, x):
            return self.fc(torch.relu(x @ self.random))

    model = Features()
    agree(used(model, torch.randn(2, 12)), {"fc": model.fc.weight})
