"""The matrices of models by kind; operators against dense ones; rows of weights, operators and changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from trials.convolutions import operators
from trials.matrices import guessed_matrices, matrices
from trials.spectra import METRICS
from trials.weights import layer_rows, weight_rows

torch.set_num_threads(1)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def params_of(module):
    return {name: draw(*value.shape, seed=place) for place, (name, value) in enumerate(module.named_parameters())}


class Conv1D(nn.Module):
    """Stores its weight as (in, out), as GPT-2 does."""

    def __init__(self, into, out):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(into, out)), nn.Parameter(torch.zeros(out))


def split(module):
    params = params_of(module)
    return params, {m.layer: (m.kind, m.of(params)) for m in matrices(module)}


def test_attention_is_split_into_queries_keys_and_values():
    params, found = split(nn.ModuleDict({"attn": nn.MultiheadAttention(6, 2)}))
    fused = params["attn.in_proj_weight"]
    assert list(found) == ["attn.in_proj_weight:q", "attn.in_proj_weight:k", "attn.in_proj_weight:v", "attn.out_proj"]
    for k, letter in enumerate("qkv"):
        kind, weight = found[f"attn.in_proj_weight:{letter}"]
        assert kind == "attention" and torch.equal(weight, fused[6 * k:6 * k + 6])
    assert found["attn.out_proj"][0] == "linear"


def test_attention_with_projections_of_their_own_is_not():
    _, found = split(nn.MultiheadAttention(6, 2, kdim=4, vdim=5))
    shapes = {layer: (kind, tuple(weight.shape)) for layer, (kind, weight) in found.items()}
    assert shapes == {"q_proj_weight": ("attention", (6, 6)), "k_proj_weight": ("attention", (6, 4)),
                      "v_proj_weight": ("attention", (6, 5)), "out_proj": ("linear", (6, 6))}


@pytest.mark.parametrize("name", ["c_attn", "qkv", "Wqkv"])
@pytest.mark.parametrize("layer, dimension", [(nn.Linear(4, 12), 0), (Conv1D(4, 12), 1)])
def test_fused_projections_are_split_by_name_and_shape(name, layer, dimension):
    params, found = split(nn.ModuleDict({name: layer}))
    assert [kind for kind, _ in found.values()] == ["attention"] * 3
    for k, letter in enumerate("qkv"):
        expected = params[f"{name}.weight"].narrow(dimension, 4 * k, 4)
        assert torch.equal(found[f"{name}:{letter}"][1], expected)


@pytest.mark.parametrize("name, layer, kind", [
    ("fc", nn.Linear(4, 12), "linear"), ("query_key_value", nn.Linear(4, 12), "linear"),
    ("qkv", nn.Linear(4, 8), "linear"), ("qkv", nn.Conv2d(4, 12, 1), "conv2d")])
def test_others_stay_whole(name, layer, kind):
    params, found = split(nn.ModuleDict({name: layer}))
    assert list(found) == [name] and found[name][0] == kind
    assert torch.equal(found[name][1], params[f"{name}.weight"].flatten(1))


@pytest.mark.parametrize("cls, gates", [(nn.LSTM, "ifgo"), (nn.GRU, "rzn")])
def test_gates_are_split(cls, gates):
    params, found = split(nn.ModuleDict({"rnn": cls(3, 5, num_layers=2, bidirectional=True)}))
    assert {kind for kind, _ in found.values()} == {"recurrent"}
    assert len(found) == 2 * 2 * 2 * len(gates)
    for k, gate in enumerate(gates):
        for name in ("weight_ih_l0", "weight_hh_l1_reverse"):
            assert torch.equal(found[f"rnn.{name}:{gate}"][1], params[f"rnn.{name}"][5 * k:5 * k + 5])


def test_gates_are_in_the_order_in_which_the_layer_uses_them():
    """With i open and f shut by large biases, the cell after one step is tanh(W x), W the third gate's."""
    lstm, x = nn.LSTM(3, 5).double(), draw(1, 1, 3)
    params = params_of(lstm)
    with torch.no_grad():
        for name, value in lstm.named_parameters():
            value.copy_(params[name])
        lstm.bias_ih_l0.copy_(torch.tensor([60.0, -60.0, 0.0, 60.0]).repeat_interleave(5))
        lstm.bias_hh_l0.zero_()
        _, (_, cell) = lstm(x)
    g = next(m for m in matrices(lstm) if m.layer == "weight_ih_l0:g").of(params)
    assert torch.allclose(cell[0, 0], torch.tanh(g @ x[0, 0]), atol=1e-12)


def test_plain_recurrent_layers_and_projections_stay_whole():
    _, found = split(nn.ModuleDict({"rnn": nn.RNN(3, 5), "lstm": nn.LSTM(3, 8, proj_size=2), "cell": nn.GRUCell(3, 5)}))
    assert "rnn.weight_ih_l0" in found and "lstm.weight_hr_l0" in found and "cell.weight_hh:n" in found
    assert found["lstm.weight_hh_l0:o"][1].shape == (8, 2)


def test_names_alone_say_the_same_of_common_models():
    model = nn.ModuleDict({
        "embed_tokens": nn.Embedding(9, 4), "attn": nn.MultiheadAttention(6, 2), "conv1": nn.Conv2d(2, 4, 3),
        "conv_in": nn.Conv1d(2, 4, 3), "lstm": nn.LSTM(3, 5), "gru": nn.GRU(7, 5), "rnn": nn.RNN(3, 5),
        "block": nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), "c_attn": Conv1D(4, 12)})
    guessed = guessed_matrices({name: tuple(value.shape) for name, value in model.named_parameters()})
    known = matrices(model)
    assert [(m.name, m.layer, m.part) for m in guessed] == [(m.name, m.layer, m.part) for m in known]
    same = {m.layer for m, n in zip(guessed, known, strict=True) if m.kind == n.kind}
    assert same == {m.layer for m in known}


def dense(conv, size):
    """The operator's matrix, column by column, by torch's own convolution with circular padding."""
    kernel = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    inputs = torch.eye(conv.in_channels * int(np.prod(size)), dtype=torch.float64).reshape(-1, conv.in_channels, *size)
    padding = [n for extra in reversed(kernel) for n in (0, extra)]
    padded = nn.functional.pad(inputs, padding, mode="circular")
    convolve = nn.functional.conv2d if len(size) == 2 else nn.functional.conv1d
    with torch.no_grad():
        return convolve(padded, conv.weight, None, conv.stride, 0, conv.dilation, conv.groups).flatten(1).T


@pytest.mark.parametrize("conv, size", [
    (nn.Conv2d(2, 3, 3, bias=False), (5, 6)), (nn.Conv2d(3, 2, (1, 3), bias=False), (4, 7)),
    (nn.Conv2d(2, 5, 3, stride=2, bias=False), (6, 4)), (nn.Conv2d(2, 3, 2, stride=(3, 2), bias=False), (6, 4)),
    (nn.Conv2d(4, 6, 3, groups=2, dilation=2, bias=False), (7, 6)), (nn.Conv1d(3, 2, 4, bias=False), (9,)),
    (nn.Conv1d(2, 2, 3, stride=2, dilation=3, groups=2, bias=False), (8,))])
def test_the_operator_has_the_singular_values_of_the_dense_matrix(conv, size):
    conv = conv.double()
    [operator] = operators(conv, draw(1, conv.in_channels, *size))
    matrix = dense(conv, size)
    assert operator.known and operator.size == size and sorted(matrix.shape) == sorted(operator.shape)
    expected = torch.linalg.svdvals(matrix)
    found = operator.singular_values(dict(conv.named_parameters()))
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_the_operator_against_numpy_as_in_the_paper():
    conv = nn.Conv2d(3, 4, 3).double()
    transforms = np.fft.fft2(conv.weight.detach().permute(2, 3, 0, 1).numpy(), (8, 8), axes=[0, 1])
    expected = np.sort(np.linalg.svd(transforms, compute_uv=False).ravel())[::-1]
    [operator] = operators(conv, draw(2, 3, 8, 8))
    assert np.allclose(operator.singular_values(dict(conv.named_parameters())).numpy(), expected)


def test_without_an_example_the_size_is_the_kernels_and_said_to_be():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.Conv2d(2, 2, 3, stride=2))
    first, second = operators(model)
    assert (first.size, second.size) == ((5, 5), (4, 4)) and not first.known
    assert first.said == "circular convolution on 5 x 5 pixels (the kernel's own size; the input's is not known)"


def test_looking_at_sizes_changes_nothing():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 2, 3)).double()
    model[1].eval()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert [operator.size for operator in operators(model, draw(1, 1, 9, 8))] == [(9, 8), (7, 6)]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert [child.training for child in model] == [True, False, True, True]
    assert not any(child._forward_pre_hooks for child in model)


def test_rows_of_weights_operators_and_changes():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 7), nn.Linear(7, 12)).double()
    params, initial = params_of(model), {name: draw(*p.shape, seed=99) for name, p in model.named_parameters()}
    found, ops = matrices(model), operators(model, draw(1, 2, 4, 4))
    [(rows, spectra)] = layer_rows(found, [params], [initial], ops)
    names = [(row["layer"], row["of"], row["kind"]) for row in rows]
    assert names == [
        ("0", "weight", "conv2d"), ("2", "weight", "linear"), ("3", "weight", "linear"),
        ("0:operator", "weight", "conv2d_operator"),
        ("0:change", "change", "conv2d"), ("2:change", "change", "linear"), ("3:change", "change", "linear")]
    by = {row["layer"]: (row, spectrum) for row, spectrum in zip(rows, spectra, strict=True)}
    for m in found:
        for layer, weight in ((m.layer, m.of(params)), (f"{m.layer}:change", m.of(params) - m.of(initial))):
            expected = (torch.linalg.svdvals(weight) ** 2 / max(weight.shape)).tolist()
            assert by[layer][1] == pytest.approx(expected, rel=1e-9)
            assert by[layer][0]["stable_rank"] == pytest.approx(sum(expected) / expected[0], rel=1e-9)
    operator, spectrum = by["0:operator"]
    singular = torch.linalg.svdvals(dense_of(model[0], params["0.weight"], (4, 4)))
    assert (operator["rows"], operator["cols"]) == (48, 32) and len(spectrum) == 32
    assert operator["spectral_norm"] == pytest.approx(singular[0].item(), rel=1e-10)
    assert operator["frobenius_norm"] == pytest.approx(singular.norm().item(), rel=1e-10)
    assert operator["alpha"] is None and operator["lambda_plus"] is None
    assert operator["reason"] == "circular convolution on 4 x 4 pixels: norms and ranks only"
    assert {column.name for column in METRICS} <= set(operator)


def dense_of(conv, weight, size):
    with torch.no_grad():
        conv.weight.copy_(weight)
    return dense(conv, size)


def test_without_initial_parameters_rows_are_of_weights_alone():
    model = nn.Linear(5, 4).double()
    params = params_of(model)
    [(rows, spectra)] = layer_rows(matrices(model), [params])
    alone, same = weight_rows([params["weight"]])
    assert [{k: v for k, v in row.items() if k not in ("layer", "kind", "of")} for row in rows] == alone
    assert spectra == same


def test_no_change_and_nothing_finite_are_rows_with_reasons():
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).double()
    params = params_of(model)
    [(rows, spectra)] = layer_rows(matrices(model), [params], [params])
    assert rows[1]["frobenius_norm"] == 0.0 and rows[1]["stable_rank"] is None and "zero" in rows[1]["reason"]
    broken = {name: torch.full_like(value, torch.nan) for name, value in params.items()}
    [(rows, spectra)] = layer_rows(matrices(model), [broken], [params], operators(model))
    assert all(row["frobenius_norm"] is None and "not finite" in row["reason"] for row in rows)
    assert spectra == [None, None, None]


def test_a_change_too_small_for_float32_sums_is_still_exact():
    """float32 weights 1e-6 apart: the difference is taken of the exact values."""
    model = nn.Linear(4, 4, bias=False)
    initial = {"weight": draw(4, 4).float() + 1.0}
    params = {"weight": initial["weight"] * (1 + 1e-6)}
    [(rows, _)] = layer_rows(matrices(model), [params], [initial])
    expected = np.linalg.norm(params["weight"].numpy().astype(float) - initial["weight"].numpy().astype(float))
    assert rows[1]["frobenius_norm"] == pytest.approx(expected, rel=1e-12)
