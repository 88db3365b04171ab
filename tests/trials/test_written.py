"""Weights that files have in parts: the numbers of the weight that the model uses, or a reason, and no other layers."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from trials.quantized import block_size
from trials.stored import Stored, unread
from trials.written import together, written_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
FP8 = torch.float8_e4m3fn


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def written(folder, state, **configs):
    torch.save(state, folder / "m.pt")
    for name, content in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return written_weights(folder / "m.pt")


def matrices_of(found):
    return {name: one for name, one in found.items() if len(one.shape) >= 2}


def only(found, name):
    """The one matrix of a file, with its name."""
    [(its, one)] = matrices_of(found).items()
    assert its == name
    return one


SHAPE = (256, 384)
STORED = {"fp8": draw(*SHAPE).to(FP8), "int8": (40 * draw(*SHAPE)).clamp(-127, 127).to(torch.int8)}
BLOCKS = draw(2, 3, seed=1).abs()


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("name, scale, spread", [
    ("weight_scale_inv", BLOCKS, BLOCKS.repeat_interleave(128, 0).repeat_interleave(128, 1)),
    ("weight_scale", draw(256, 1, seed=1), None), ("weight_scale", draw(1, 384, seed=1), None),
    ("weight_scale", draw(256, seed=1), "rows"), ("weight_scale_inv", draw(384, seed=1), None),
    ("weight_scale", torch.tensor(0.01), None), ("weight_scale_inv", torch.tensor([0.01]), None),
    ("scale_weight", torch.tensor(3.0), None), ("weight_scale", draw(256, 12, seed=1), "groups"),
    ("weight_scale", torch.tensor([[0.5, 2.0, 4.0]]).to(FP8), "columns")])
def test_scaled_weights(tmp_path, kind, name, scale, spread):
    stored = STORED[kind]
    found = written(tmp_path, {"fc.weight": stored, f"fc.{name}": scale, "fc.input_scale": torch.tensor([2.0])})
    spread = {"rows": lambda: scale[:, None], "groups": lambda: scale.repeat_interleave(32, 1),
              "columns": lambda: scale.float().repeat_interleave(128, 1)}.get(
        spread, lambda: scale if spread is None else spread)() if not isinstance(spread, torch.Tensor) else spread
    one = only(found, "fc.weight")
    assert torch.equal(one.load(), stored.float() * spread) and one.made.startswith(f"stored * {name}")
    assert list(found) == ["fc.weight", "fc.input_scale"]


def test_blocks_with_a_shorter_last_one(tmp_path):
    stored, scale = draw(300, 520).to(FP8), draw(3, 5, seed=1)
    spread = scale.repeat_interleave(128, 0)[:300].repeat_interleave(128, 1)[:, :520]
    ambiguous = written(tmp_path, {"l.weight": stored, "l.weight_scale_inv": scale})
    assert "may be of blocks of 100 or 128" in only(ambiguous, "l.weight").trouble
    config = {"quantization_config": {"weight_block_size": [128, 128]}}
    found = written(tmp_path, {"l.weight": stored, "l.weight_scale_inv": scale}, config=config)
    assert torch.equal(only(found, "l.weight").load(), stored.float() * spread)


@pytest.mark.parametrize("weight, scale, block, expected", [
    ((576, 7168), (5, 56), None, (128, 128)), ((12, 8), (3, 2), None, (4, 4)), ((64, 10), (64,), None, (1, 10)),
    ((4, 256, 512), (4, 2, 4), None, (1, 128, 128)), ((8, 4, 3, 3), (8, 1, 1, 1), None, (1, 4, 3, 3)),
    ((8, 4, 3, 3), (8, 1), None, (1, 4, 3, 3)), ((192, 128), (2, 1), [128, 128], (128, 128)),
    ((64, 64), (64,), None, "each row or each column"), ((192, 128), (2, 1), None, "96 or 128"),
    ((64, 32), (5,), None, "does not fit"), ((64, 32), (0, 1), None, "does not fit"),
    ((64, 32), (2, 2, 2), None, "does not fit"), ((64, 32), (128, 1), None, "does not fit")])
def test_the_size_of_blocks(weight, scale, block, expected):
    found = block_size(weight, scale, block)
    assert (expected in found) if isinstance(expected, str) else found == expected


def test_zero_points_bitsandbytes_and_quanto(tmp_path):
    stored, scale, zero = STORED["int8"], draw(256, 1), torch.randint(-9, 9, (256, 1), dtype=torch.int8)
    found = written(tmp_path, {
        "a.weight": stored, "a.weight_scale": scale, "a.weight_zero_point": zero,
        "b.weight": stored, "b.SCB": scale[:, 0].abs(), "b.weight_format": torch.tensor(0, dtype=torch.uint8),
        "c.weight._data": stored, "c.weight._scale": scale})
    assert list(found) == ["a.weight", "b.weight", "c.weight"]
    assert torch.equal(found["a.weight"].load(), (stored.float() - zero.float()) * scale)
    assert torch.allclose(found["b.weight"].load(), stored.float() * scale.abs() / 127)
    assert torch.equal(found["c.weight"].load(), stored.float() * scale)


PACKED = torch.zeros(8, 16, dtype=torch.int32)


@pytest.mark.parametrize("state, layer, why", [
    ({"l.weight": STORED["fp8"], "l.weight_scale": draw(7, 5)}, "l.weight", "does not fit"),
    ({"l.weight": STORED["int8"], "l.scale": draw(256, 1)}, "l.weight", "beside scale, a scale whose convention"),
    ({"l.weight": STORED["int8"], "l.weight_absmax": draw(256, 1)}, "l.weight", "beside weight_absmax"),
    ({"l.weight": STORED["fp8"], "l.weight_scale": draw(256, 1), "l.weight_scale_2": draw(1)}, "l.weight", "several"),
    ({"l.weight": STORED["fp8"], "l.weight_scale": PACKED[:2, :3]}, "l.weight", "holds no real numbers (int32)"),
    ({"l.weight": draw(8, 8), "l.weight_scale": draw(8, 1)}, "l.weight", "of type float32 beside weight_scale"),
    ({"l.qweight": PACKED, "l.qzeros": PACKED, "l.scales": draw(4, 16), "l.g_idx": PACKED[0]}, "l.weight", "GPTQ"),
    ({"l.weight_packed": PACKED, "l.weight_scale": draw(8, 4), "l.weight_shape": torch.tensor([8, 128])}, "l.weight",
     "packed (compressed-tensors)"),
    ({"e.up_blocks": torch.zeros(2, 4, 4, 16, dtype=torch.uint8), "e.up_scales": torch.zeros(2, 4, 4).byte()}, "e.up",
     "MXFP4"),
    ({"l.weight": torch.zeros(64, 1, dtype=torch.uint8), "l.weight.absmax": draw(2), "l.weight.quant_map": draw(16)},
     "l.weight", "bitsandbytes"),
    ({"l.weight_v": draw(8, 8), "l.weight_g": draw(8)}, "l.weight", "no weight_norm's"),
    ({"l.parametrizations.weight.original0": draw(8, 2), "l.parametrizations.weight.original1": draw(2, 8)},
     "l.weight", "no weight_norm's"),
    ({"l.weight_orig": draw(8, 8)}, "l.weight", "not in the file"),
    ({"l.weight_orig": draw(8, 8), "l.weight_mask": torch.ones(8, 8), "l.weight_u": draw(8), "l.weight_v": draw(8)},
     "l.weight", "not in the file"),
    ({"l.weight_orig": draw(8, 8), "l.weight_mask": torch.ones(8, 8), "l.weight": draw(8, 8)}, "l.weight", "both"),
    ({"c.weight_orig": draw(8, 8, 3, 3), "c.weight_u": draw(8), "c.weight_v": draw(72)}, "c.weight", "which dimension"),
    ({"l.weight": draw(8, 6), "l.lora_A.weight": draw(2, 6), "l.lora_B.weight": draw(8, 2)}, "l.weight", "scaling"),
    ({"l.lora_A.a.weight": draw(2, 6), "l.lora_B.a.weight": draw(8, 2), "l.lora_A.b.weight": draw(2, 6),
      "l.lora_B.b.weight": draw(8, 2)}, "l.weight", "several adapters"),
    ({"l.lora_A.weight": draw(2, 6), "l.lora_B.weight": draw(8, 2), "l.lora_magnitude_vector": draw(8, 1)}, "l.weight",
     "more than LoRA"),
    ({"l.lora_A.weight": draw(3, 6), "l.lora_B.weight": draw(8, 2)}, "l.weight", "no product")])
def test_where_there_is_a_doubt_a_layer_has_a_reason(tmp_path, state, layer, why):
    one = only(written(tmp_path, state), layer)
    assert why in one.trouble and not one.made


def test_layers_of_all_reparametrizations_are_those_of_the_module(tmp_path):
    """Of PyTorch's own modules, in evaluation mode."""
    torch.manual_seed(0)
    layers = OrderedDict(
        wn=parametrizations.weight_norm(nn.Linear(6, 5)), wn1=parametrizations.weight_norm(nn.Linear(6, 5), dim=1),
        all=parametrizations.weight_norm(nn.Linear(6, 5), dim=None), one=parametrizations.weight_norm(nn.Linear(6, 1)),
        conv=parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), old=old_weight_norm(nn.Linear(6, 5)),
        sn=parametrizations.spectral_norm(nn.Linear(6, 5)), square=parametrizations.spectral_norm(nn.Linear(6, 6)),
        turned=parametrizations.spectral_norm(nn.ConvTranspose2d(3, 4, 3)),
        old_sn=old_spectral_norm(nn.Conv2d(3, 4, 3)), pruned=nn.Linear(6, 5), plain=nn.Linear(6, 5))
    prune.l1_unstructured(layers["pruned"], "weight", 0.5)
    model = nn.ModuleDict(layers)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape)
    model.eval()
    model["old_sn"](torch.zeros(1, 3, 4, 4))  # the older hooks compute at a call
    model["old"](torch.zeros(1, 6))
    model["pruned"](torch.zeros(1, 6))
    found = matrices_of(written(tmp_path, model.state_dict()))
    assert sorted(found) == sorted(f"{name}.weight" for name in layers)
    for name, layer in layers.items():
        assert torch.allclose(found[f"{name}.weight"].load(), layer.weight, rtol=1e-5, atol=1e-6), name


def test_maps_that_are_not_in_the_file(tmp_path):
    class Twice(nn.Module):
        def forward(self, w):
            return 2 * w

    model = nn.ModuleDict({"q": parametrizations.orthogonal(nn.Linear(6, 6)),
                           "own": parametrize.register_parametrization(nn.Linear(6, 6), "weight", Twice())})
    found = matrices_of(written(tmp_path, model.state_dict()))
    assert {name: one.trouble for name, one in found.items()} == {
        "q.weight": "made by orthogonal: its map is not in the file",
        "own.weight": "made by a parametrization that is not in the file"}


A, B, W = draw(2, 6, seed=1), draw(8, 2, seed=2), draw(8, 6, seed=3)


@pytest.mark.parametrize("state, config, name, expected, said", [
    ({"q.lora_A.weight": A, "q.lora_B.weight": B}, {"lora_alpha": 6, "r": 2}, "q.weight", 3 * B @ A, "s = 3"),
    ({"q.lora_A.weight": A, "q.lora_B.weight": B}, {}, "q.weight", B @ A, "without its scaling"),
    ({"q.lora_A.weight": A, "q.lora_B.weight": B}, {"lora_alpha": 6, "r": 8, "rank_pattern": {"q": 2}}, "q.weight",
     3 * B @ A, "s = 3"),
    ({"base_model.model.q.base_layer.weight": W, "base_model.model.q.lora_A.default.weight": A,
      "base_model.model.q.lora_B.default.weight": B}, {"lora_alpha": 4, "use_rslora": True}, "q.weight",
     W + 4 / 2**0.5 * B @ A, "rsLoRA"),
    ({"q.weight": W, "q.lora_A": A, "q.lora_B": B, "q.alpha": torch.tensor(1.0)}, {}, "q.weight", W + 0.5 * B @ A,
     "W + s B A"),
    ({"q.weight": W.T.contiguous(), "q.lora_A": A, "q.lora_B": B}, {"lora_alpha": 2}, "q.weight", (W + B @ A).T,
     "s = 1"),
    ({"q.weight": W.to(FP8), "q.weight_scale": torch.tensor(2.0), "q.lora_A": A, "q.lora_B": B}, {"lora_alpha": 2},
     "q.weight", 2 * W.to(FP8).float() + B @ A, "s = 1"),
    ({"c.lora_down.weight": draw(2, 3, 3, 3), "c.lora_up.weight": B[:, :, None, None], "c.alpha": torch.tensor(2.0)},
     {}, "c.weight", torch.einsum("or,rihw->oihw", B, draw(2, 3, 3, 3)), "s = 1")])
def test_adapters(tmp_path, state, config, name, expected, said):
    one = only(written(tmp_path, state, adapter_config=config), name)
    assert one.shape == expected.shape and torch.allclose(one.load(), expected, atol=1e-6) and said in one.made


def test_names_that_only_look_alike_stay(tmp_path):
    state = {"head.proj_v": draw(4, 6), "head.proj_g": draw(4, 6), "m.weight_scale": draw(3, 3),
             "norm.scale": draw(4, 4), "attn.alpha": torch.tensor(0.5), "blocks.weight": draw(5, 4),
             "x_mask": torch.ones(3, 3), "vq.codes": draw(4, 4), "net.w_blocks": draw(4, 4)}
    found = written(tmp_path, state)
    assert list(found) == list(state) and not any(one.made or one.trouble for one in found.values())


LEAVES = ["weight", "weight_scale", "weight_scale_inv", "scale", "weight_zero_point", "SCB", "scale_weight",
          "weight_orig", "weight_mask", "weight_g", "weight_v", "weight_u", "qweight", "scales", "w_blocks", "w_scales",
          "lora_A", "lora_B.weight", "lora_A.weight", "lora_B", "alpha", "weight._data", "weight._scale",
          "weight.absmax"]
LEAVES += [f"parametrizations.weight.{word}" for word in ("original", "original0", "original1", "0._u", "0._v")]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, FP8, torch.int8, torch.uint8, torch.int32, torch.bool, None]
TENSORS = st.dictionaries(st.sampled_from([f"{owner}{leaf}" for owner in ("", "a.") for leaf in LEAVES]), st.tuples(
    st.sampled_from(DTYPES), st.lists(st.sampled_from([0, 1, 2, 4, 6]), max_size=3).map(tuple)), min_size=1, max_size=7)


@settings(max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(TENSORS, st.sampled_from([{}, {"lora_alpha": 3}]))
def test_whatever_lies_together_has_the_shape_that_is_said_or_a_reason(tensors, adapter):
    def entry(dtype, shape):
        return Stored(shape, dtype, lambda: torch.ones(shape).to(dtype)) if dtype else unread(shape, "cannot be read")
    for one in together({name: entry(*what) for name, what in tensors.items()}, {}, adapter).values():
        assert one.trouble or one.load().shape == one.shape
