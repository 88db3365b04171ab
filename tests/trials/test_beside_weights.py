"""What lies beside a weight in a file is applied, or is a reason that names it: right numbers from NumPy."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from trials.matrices import guessed_matrices
from trials.stored import unread
from trials.written import together, written_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CODES = (40 * draw(64, 48)).clamp(-127, 127).to(torch.int8)
SCALE = draw(64, 1, seed=1).abs()
ZERO = (20 * draw(64, 1, seed=2)).to(torch.int8)
SCALED = {"fc.weight": CODES, "fc.weight_scale": SCALE}
A, B, W = draw(4, 48, seed=3), draw(64, 4, seed=4), draw(64, 48, seed=5)
LORA = {"fc.lora_A.default.weight": A, "fc.lora_B.default.weight": B}
BASE = {"fc.base_layer.weight": W, **LORA, "fc.scaling": torch.tensor(2.0)}


def norms(weight):
    singular = np.linalg.svd(np.asarray(weight, dtype=np.float64), compute_uv=False)
    return [(singular**2).sum() ** 0.5, singular[0]]


def only(folder, state, config=None):
    torch.save(state, folder / "m.pt")
    (folder / "adapter_config.json").write_text(json.dumps(config or {}))
    found = written_weights(folder / "m.pt")
    [(name, one)] = [(name, one) for name, one in found.items() if len(one.shape) >= 2]
    assert name == "fc.weight"
    return one


@pytest.mark.parametrize("name", ["weight_zero_point", "weight_zero_points", "weight_zp"])
def test_zero_points_are_subtracted(tmp_path, name):
    one = only(tmp_path, {**SCALED, f"fc.{name}": ZERO})
    right = (CODES.numpy().astype(float) - ZERO.numpy().astype(float)) * SCALE.numpy()
    assert norms(one.load()) == pytest.approx(norms(right), rel=1e-5)


@pytest.mark.parametrize("name", [
    "fc.weight_offset", "fc.weight_shift", "fc.zero_point", "fc.zp", "fc.offset", "fc.weight.zero_point",
    "fc.weight.offset", "fc.weight:zp", "fc_zero_point", "fc_zp", "zero_points.fc.weight", "zeros.fc.weight",
    "fc.weight_quantizer.pre_scale", "fc.pre_quant_scale", "fc.weight_g_idx", "fc.smooth", "fc.weight_bias"])
def test_an_unknown_tensor_beside_a_quantized_weight_is_named(tmp_path, name):
    one = only(tmp_path, {**SCALED, name: ZERO[:, 0] if ZERO.dtype is None else ZERO.float()[:, 0]})
    assert one.trouble == f"beside {name}, whose meaning is not known" and not one.made


@pytest.mark.parametrize("name", [
    "fc.bias", "fc.input_scale", "fc.input_zero_point", "fc.output_scale", "fc.weight_shape", "norm.zero_point",
    "fc.k_scale", "fc2.offset", "zero_points.fd.weight"])
def test_others_leave_its_numbers(tmp_path, name):
    one = only(tmp_path, {**SCALED, name: torch.ones(3)})
    assert norms(one.load()) == pytest.approx(norms(CODES.numpy() * SCALE.numpy()), rel=1e-5)


def test_weights_of_one_owner_are_not_beside_each_other():
    names = ("w1", "w1_up", "w2")
    state = {f"experts.{name}{end}": draw(4, 4).to(torch.int8) if not end else draw(4, 1)[:, 0] if end == "_bias" else
             draw(4, 1) for name in names for end in ("", "_scale", "_bias")}
    found = together({name: replaced(value) for name, value in state.items()}, {}, {})
    assert all(found[f"experts.{name}"].made and not found[f"experts.{name}"].trouble for name in names)


def replaced(value):
    from trials.stored import Stored
    return Stored(tuple(value.shape), value.dtype, lambda: value)


def test_a_mask_of_a_quantized_weight(tmp_path):
    one = only(tmp_path, {**SCALED, "fc.weight_mask": W > 0})
    right = CODES.numpy() * SCALE.numpy() * (W > 0).numpy()
    assert norms(one.load()) == pytest.approx(norms(right), rel=1e-5)


@pytest.mark.parametrize("pattern, s", [
    ({"fc": 16}, 4), ({"other": 16}, 2), ({"c": 16}, 2), ({"^fc": 16}, 4), (r"nested", None), ({"(c+)+$": 16}, None),
    ({"other": 4, "fc": 12, "model.fc": 40}, 3)])
@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_alpha_pattern(tmp_path, pattern, s, prefix):
    state = {prefix + name: value for name, value in LORA.items()}
    one = only(tmp_path, state, {"lora_alpha": 8, "r": 64, "alpha_pattern": pattern, "rank_pattern": {"fc": 4}})
    if s is None:
        assert "alpha_pattern" in one.trouble
    else:
        assert norms(one.load()) == pytest.approx(norms(s * B.numpy() @ A.numpy()), rel=1e-5)


@pytest.mark.parametrize("name", [
    "lora_magnitude_vector.default.weight", "lora_magnitude_vector.weight", "lora_magnitude_vector.default",
    "lora_magnitude_vector", "dora_scale", "magnitude", "lora_magnitude_vector.other.weight", "lora_E.default"])
def test_more_than_lora_has_no_numbers(tmp_path, name):
    assert only(tmp_path, {**BASE, f"fc.{name}": torch.rand(64)}).trouble == "beside more than LoRA"


def test_lora_with_a_bias_has(tmp_path):
    one = only(tmp_path, {**BASE, "fc.lora_B.default.bias": torch.rand(64)})
    assert norms(one.load()) == pytest.approx(norms(W.numpy() + 2 * B.numpy() @ A.numpy()), rel=1e-5)


def linear(*sizes):
    torch.manual_seed(0)
    return nn.Linear(*sizes)


def pruned_norm(make, part):
    layer = make(linear(30, 20))
    prune.l1_unstructured(layer, part, 0.5)
    return layer


LAYERS = {
    "pruned weight_norm": lambda: pruned_norm(weight_norm, "weight_v"),
    "pruned spectral_norm": lambda: pruned_norm(spectral_norm, "weight_orig"),
    **{f"{name}, dim {dim}": (lambda make=make, dim=dim: make(linear(50, 50), dim=dim))
       for name, make in (("old", spectral_norm), ("new", parametrizations.spectral_norm)) for dim in (0, 1)},
    "convolution": lambda: spectral_norm(nn.Conv2d(8, 8, 3)), "turned": lambda: spectral_norm(
        nn.ConvTranspose2d(8, 8, 3))}


@pytest.mark.parametrize("name", LAYERS)
def test_norms_are_those_of_the_module(tmp_path, name):
    layer = LAYERS[name]()
    given = torch.zeros(2, 8, 5, 5) if "Conv" in type(layer).__name__ else torch.zeros(2, layer.in_features)
    for _ in range(20):
        layer(given)
    layer.eval()
    layer(given)
    one = only(tmp_path, nn.ModuleDict({"fc": layer}).state_dict())
    assert not one.trouble, one.trouble
    np.testing.assert_allclose(one.load(), layer.weight.detach(), rtol=1e-5, atol=1e-6)
    assert one.made.startswith("pruned: orig * mask; " if "pruned" in name else "spectral_norm")


def test_a_norm_that_was_never_iterated_is_a_doubt(tmp_path):
    torch.manual_seed(0)
    state = {"fc.weight_orig": draw(50, 50), "fc.weight_u": torch.randn(50), "fc.weight_v": torch.randn(50)}
    assert "which dimension" in only(tmp_path, state).trouble


def test_packed_weights_and_their_scales_are_no_layers(tmp_path):
    scales = {"fc.scales": torch.rand(64, 2), "fc.biases": torch.rand(64, 2)}
    for packed in (torch.zeros(64, 6, dtype=torch.int32), CODES):
        assert only(tmp_path, {"fc.weight": packed, **scales}).trouble == "packed (MLX)"
    found = together({"fc.weight": unread((64, 48), "of type F4"), "fc.weight_scale": replaced(draw(64, 2))}, {}, {})
    assert list(found) == ["fc.weight"] and "of type F4 beside weight_scale" in found["fc.weight"].trouble


def test_causal_masks_are_left_out(tmp_path):
    tril = torch.ones(64, 64).tril()
    state = {"attn.bias": tril[None, None], "far": (-1e4 * (1 - tril))[None, None], "a.mask": tril,
             "b.weight": tril, "c.bias": draw(64, 64), "d.kernel": draw(1, 1, 5, 5)}
    torch.save(state, tmp_path / "m.pt")
    found = written_weights(tmp_path / "m.pt")
    assert [name for name, one in found.items() if one.trouble == "a causal mask"] == ["attn.bias", "far", "a.mask"]


@pytest.mark.parametrize("name", ["mlp.experts.w1", "block_sparse_moe.w1", "experts.weight"])
def test_experts_are_matrices_each(name):
    weight = draw(4, 64, 48)
    found = guessed_matrices({name: weight.shape})
    layer = re.sub(r"\.weight$", "", name)
    assert [one.layer for one in found] == [f"{layer}:{k}" for k in range(4)]
    for k, one in enumerate(found):
        assert norms(one.of({name: weight})) == pytest.approx(norms(weight[k]), rel=1e-6)
    assert len(guessed_matrices({name: (2**40, 0, 0)})) == 1
