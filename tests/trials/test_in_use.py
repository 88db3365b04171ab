"""Reparametrized layers have the metrics of the plain layer that holds the weight they use."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from trials import usercode
from trials.convolutions import operators
from trials.in_use import WeightsInUse
from trials.matrices import matrices
from trials.measure import Measure
from trials.packs.pack import train_pack
from trials.setup import build_module, load_data, prepare
from trials.spec import parse_trial
from trials.trainer import Alone, train
from trials.weights import layer_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
torch.set_num_threads(1)


class Symmetric(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.bend = nn.Parameter(torch.randn(n, n))

    def forward(self, w):
        return (w + w.mT) * (1 + self.bend.square())


class Scaled(nn.Linear):
    """The NTK parametrization."""

    def forward(self, x):
        return F.linear(x, self.weight / self.in_features**0.5, self.bias)


class Standardized(nn.Conv2d):
    def forward(self, x):
        w = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, w, self.bias)


class OwnNorm(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(into, out)), nn.Parameter(torch.rand(1, out))

    def forward(self, x):
        return x @ (self.g * F.normalize(self.v, dim=0))


class Product(nn.Module):
    def __init__(self, into, rank, out):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(out, rank)), nn.Parameter(torch.randn(rank, into))

    def forward(self, x):
        return F.linear(x, self.u @ self.v)


class Lora(nn.Module):
    def __init__(self, base, rank=2, alpha=3.0):
        super().__init__()
        self.base_layer, self.scaling = base, {"default": alpha / rank}
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})
        self.lora_dropout = nn.Dropout(0.5)

    def forward(self, x):
        low = self.lora_B["default"](self.lora_A["default"](self.lora_dropout(x)))
        return self.base_layer(x) + self.scaling["default"] * low


class Merged(nn.Linear):
    """As Lora, with factors the other way round, added to the weight."""

    def __init__(self, into, out, rank=2):
        super().__init__(into, out)
        self.down, self.up = nn.Parameter(torch.randn(into, rank)), nn.Parameter(torch.randn(rank, out))

    def forward(self, x):
        return F.linear(x, self.weight + 0.7 * (self.down @ self.up).T, self.bias)


def pruned(layer, twice=False):
    prune.l1_unstructured(layer, "weight", 0.5)
    if twice:
        prune.random_unstructured(layer, "weight", 0.3)
    return layer


def spectral_then_symmetric(layer):
    parametrizations.spectral_norm(layer)
    parametrize.register_parametrization(layer, "weight", Symmetric(len(layer.weight)))
    return layer


LINEAR = {
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(24, 20)),
    "weight_norm dim 1": lambda: parametrizations.weight_norm(nn.Linear(24, 20), dim=1),
    "weight_norm of all": lambda: parametrizations.weight_norm(nn.Linear(24, 20), dim=None),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(24, 20)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(24, 20)),
    "cayley": lambda: parametrizations.orthogonal(nn.Linear(24, 24), orthogonal_map="cayley"),
    "chain": lambda: spectral_then_symmetric(nn.Linear(24, 24)),
    "own": lambda: parametrize.register_parametrization(nn.Linear(24, 24), "weight", Symmetric(24)),
    "old weight_norm": lambda: old_weight_norm(nn.Linear(24, 20)),
    "old spectral_norm": lambda: old_spectral_norm(nn.Linear(24, 20)),
    "pruned": lambda: pruned(nn.Linear(24, 20)), "pruned twice": lambda: pruned(nn.Linear(24, 20), True),
    "LoRA": lambda: Lora(nn.Linear(24, 20)), "LoRA, square": lambda: Lora(nn.Linear(24, 24)),
    "LoRA, normed": lambda: Merged(24, 20), "scaled": lambda: Scaled(24, 20), "own norm": lambda: OwnNorm(24, 20),
    "product": lambda: Product(24, 2, 20), "scaled pruned": lambda: pruned(Scaled(24, 20)),
}


def drawn(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for name, value in module.named_parameters()}


def in_place(module, params):
    """The module in evaluation mode with these parameters in it."""
    module = copy.deepcopy(module).eval()
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(params[name])
    return module


def linear_map(module, size):
    """W of the affine map, by plain calls."""
    with torch.no_grad():
        return (module(torch.eye(size, dtype=torch.float64)) - module(torch.zeros(1, size, dtype=torch.float64))).mT


@pytest.mark.parametrize("kind", LINEAR)
def test_a_linear_layer_has_the_metrics_of_the_plain_one_with_its_weight(kind):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), LINEAR[kind](), nn.Tanh(), nn.LazyLinear(3)).double()
    model(torch.randn(2, 4).double())
    model.train()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    in_use = WeightsInUse(model, torch.randn(1, 4).double())
    found = matrices(model, in_use.computed)
    assert [m.layer for m in found] == ["0", "2", "4"]
    params, initial = drawn(model), drawn(model, 1)
    [(rows, spectra)] = layer_rows(found, [in_use(params)], [in_use(initial)])
    plain = nn.Sequential(nn.Linear(4, 24), nn.Linear(24, 20), nn.Linear(20, 3))
    weights, before = ({f"{place}.weight": value for place, value in enumerate(
        [p["0.weight"], linear_map(in_place(model, p)[2], 24), p["4.weight"]])} for p in (params, initial))
    [(expected, their)] = layer_rows(matrices(plain), [weights], [before])
    for row, other, spectrum, same in zip(rows, expected, spectra, their, strict=True):
        assert spectrum == pytest.approx(same, rel=1e-9, abs=1e-12)
        for name in ("of", "rows", "cols", "stable_rank", "frobenius_norm", "mp_softrank", "n_spikes", "alpha_raw"):
            found = row[name] if row[name] is None or name == "of" else pytest.approx(row[name], rel=1e-7)
            assert other[name] == found, name
    assert all(torch.equal(buffers[name], value) for name, value in model.named_buffers())
    assert all(child.training for child in model.modules())


def test_ordinary_models_are_left_as_they_are():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.attn = nn.Embedding(9, 6), nn.MultiheadAttention(6, 2, batch_first=True)
            self.position, self.mix = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(4, 4))
            self.fc, self.query = nn.Linear(6, 6), nn.Parameter(torch.randn(1, 6))

        def forward(self, x):
            h = self.tokens(x) + self.position
            h = h + self.attn(h, h, h, need_weights=False)[0]
            h = self.mix @ h
            pooled = torch.softmax(self.fc(self.query) @ h.mT, -1) @ h
            return pooled[:, 0] @ self.tokens.weight.T

    model = Plain()
    in_use, params = WeightsInUse(model, torch.arange(4)[None]), dict(model.named_parameters())
    assert in_use.computed == [] and in_use(params) is params
    deep = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 6), nn.Linear(6, 6), nn.ReLU())
    assert WeightsInUse(deep, torch.randn(1, 6)).computed == []


@pytest.mark.parametrize("conv", [
    lambda: parametrizations.weight_norm(nn.Conv2d(2, 4, 3)), lambda: old_spectral_norm(nn.Conv2d(2, 4, 3)),
    lambda: pruned(nn.Conv2d(2, 4, 3)), lambda: Standardized(2, 4, 3)])
def test_a_convolution_and_its_operator(conv):
    torch.manual_seed(0)
    model, example = nn.Sequential(conv(), nn.ReLU()).double(), torch.randn(1, 2, 7, 6).double()
    in_use = WeightsInUse(model, example)
    params = drawn(model)
    [(rows, spectra)] = layer_rows(matrices(model, in_use.computed), [in_use(params)], None,
                                   operators(model, example, in_use.computed))
    plain, used = nn.Sequential(nn.Conv2d(2, 4, 3)).double(), in_place(model, params)[0]
    # The kernel, tap by tap, from what the layer makes of single pixels.
    pixels = torch.eye(18, dtype=torch.float64).reshape(18, 2, 3, 3)
    with torch.no_grad():
        kernel = (used(pixels) - used(torch.zeros(1, 2, 3, 3).double())).reshape(18, 4).T.reshape(4, 2, 3, 3)
    [(expected, their)] = layer_rows(matrices(plain), [{"0.weight": kernel}], None, operators(plain, example))
    assert [row["layer"] for row in rows] == ["0", "0:operator"] and [row["kind"] for row in rows] == [
        row["kind"] for row in expected]
    for spectrum, same in zip(spectra, their, strict=True):
        assert spectrum == pytest.approx(same, rel=1e-9)
    assert rows[1]["spectral_norm"] == pytest.approx(expected[1]["spectral_norm"], rel=1e-9)


def test_fused_projections_of_a_reparametrized_attention_are_split():
    attention = nn.MultiheadAttention(6, 2).double()
    parametrizations.weight_norm(attention, "in_proj_weight")
    parametrizations.weight_norm(attention.out_proj, "weight")
    in_use = WeightsInUse(attention)
    found = matrices(attention, in_use.computed)
    assert {m.layer for m in found} == {"in_proj_weight:q", "in_proj_weight:k", "in_proj_weight:v", "out_proj"}
    params = drawn(attention)
    used = in_place(attention, params).in_proj_weight
    keys = next(m for m in found if m.layer.endswith(":k"))
    assert torch.allclose(keys.of(in_use(params)), used[6:12])


def test_parts_that_are_used_as_they_are_too_stay_layers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.gain = nn.Parameter(torch.randn(5, 5)), nn.Parameter(torch.rand(5))

        def forward(self, x):
            return torch.relu(F.linear(x, self.weight)) @ (self.weight * self.gain)

    model = Tied()
    in_use, params = WeightsInUse(model, torch.randn(1, 5)), dict(model.named_parameters())
    found = {m.layer: m.of(in_use(params)) for m in matrices(model, in_use.computed)}
    assert list(found) == ["weight", "weight#2"] and torch.equal(found["weight"], model.weight)
    assert torch.equal(found["weight#2"], model.weight * model.gain)


ZOO = """
import math
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

def net(s, o, norm="none"):
    layers = [nn.Linear(math.prod(s), 12), nn.Linear(12, o)]
    if norm == "weight":
        layers = [weight_norm(layer) for layer in layers]
    if norm == "spectral":
        layers = [spectral_norm(layer) for layer in layers]
    return nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])
"""


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_trials_alone_and_side_by_side(tmp_path, monkeypatch):
    """weight_norm changes no weight before the first step, but for the last digits of float32, in which it is made:
    there its rows are the plain net's. Those of spectral_norm are by the u and v of the trial."""
    (tmp_path / "zoo_in_use.py").write_text(ZOO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])

    def trial(norm, lr=0.1):
        return parse_trial({"task": "digits", "model": {"name": "zoo_in_use.py:net", "norm": norm}, "batch_size": 8,
                            "optimizer": {"name": "sgd", "lr": lr}, "budget": {"steps": 6}, "precision": "float64"})
    measure = Measure(weights="ends", eigenvalues="ends", changes="last")
    plain, normed = train(trial("none"), measure), train(trial("weight"), measure)
    assert [row["layer"] for row in normed.layers] == ["1", "3", "1", "3", "1:change", "3:change"]
    for row, other in zip(normed.layers[:2], plain.layers[:2], strict=True):
        assert other == {name: pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
                         for name, value in row.items()}
    packed = {spec.optimizer["lr"]: emitted for spec, emitted in
              train_pack([trial("weight"), trial("weight", 0.2)], measure, "cpu", 2)}
    spectral = trial("spectral", 0.5)
    alone = Alone(prepare(spectral, "cpu"))
    for _ in range(6):
        alone.take()
    module = build_module(spectral, load_data(spectral)).double().eval()
    module.load_state_dict({**alone.params, **alone.buffers})
    expected = [torch.linalg.svdvals(module[place].weight)[0].item() for place in (1, 3)]
    rows = train(spectral, measure).layers[2:4]
    assert [row["spectral_norm"] for row in rows] == pytest.approx(expected, rel=1e-9)
    for row, other in zip(packed[0.1].spectra, normed.spectra, strict=True):
        assert row["layer"] == other["layer"] and row["eigenvalues"] == pytest.approx(other["eigenvalues"], rel=1e-9)
