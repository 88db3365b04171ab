"""Whatever function multiplies by a weight that is computed in a forward pass, its row is of that weight; where that
cannot be told, the row says so."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trials.in_use import SCALED, UNSEEN, WeightsInUse
from trials.matrices import matrices
from trials.weights import layer_rows

pytestmark = pytest.mark.filterwarnings("ignore:torch.chain_matmul is deprecated")
E = torch.eye(12)
PRODUCTS = {
    "@": lambda x, w: x @ w.T, "on the left": lambda x, w: (w @ x.T).T, "__matmul__": lambda x, w: x.__matmul__(w.T),
    "matmul": lambda x, w: torch.matmul(x, w.T), "Tensor.matmul": lambda x, w: x.matmul(w.T),
    "linalg.matmul": lambda x, w: torch.linalg.matmul(x, w.T), "inner": lambda x, w: torch.inner(x, w),
    "Tensor.inner": lambda x, w: x.inner(w), "tensordot": lambda x, w: torch.tensordot(x, w, ([1], [1])),
    "tensordot 1": lambda x, w: torch.tensordot(x, w.T, 1), "multi_dot": lambda x, w: torch.linalg.multi_dot([x, w.T]),
    "multi_dot of three": lambda x, w: torch.linalg.multi_dot([x, w.T, E]),
    "chain_matmul": lambda x, w: torch.chain_matmul(x, w.T), "mm": lambda x, w: torch.mm(x, w.T),
    "mm out": lambda x, w: torch.mm(x, w.T, out=torch.empty(2, 12)),
    "mv": lambda x, w: torch.stack([torch.mv(w, row) for row in x]),
    "Tensor.mv": lambda x, w: torch.stack([w.mv(row) for row in x]),
    "addmm": lambda x, w: torch.addmm(torch.zeros(12), x, w.T),
    "addmm_": lambda x, w: torch.zeros(2, 12).addmm_(x, w.T),
    "addmv": lambda x, w: torch.stack([torch.addmv(torch.zeros(12), w, row) for row in x]),
    "bmm": lambda x, w: torch.bmm(x[None], w.T[None])[0],
    "baddbmm": lambda x, w: torch.baddbmm(torch.zeros(1), x[None], w.T[None])[0],
    "addbmm": lambda x, w: torch.addbmm(torch.zeros(1), x[None], w.T[None]),
    "sparse.mm": lambda x, w: torch.sparse.mm(w.to_sparse(), x.T).T,
    "sparse.addmm": lambda x, w: torch.sparse.addmm(torch.zeros(12, 2), w.to_sparse(), x.T).T,
    "einsum": lambda x, w: torch.einsum("oi,bi->bo", w, x), "F.linear": lambda x, w: F.linear(x, w),
    "F.bilinear": lambda x, w: F.bilinear(torch.ones(2, 1), x, w[:, None]),
    "F.conv1d": lambda x, w: F.conv1d(x[..., None], w[..., None])[..., 0],
    "conv_tbc": lambda x, w: torch.conv_tbc(x[None], w.T[None], torch.zeros(12))[0],
    "F.multi_head_attention_forward": lambda x, w: _attention(x, w),
    "F.scaled_dot_product_attention": lambda x, w: F.scaled_dot_product_attention(x[None], w[None], w[None])[0],
    "GRU cell": lambda x, w: torch.gru_cell(x, torch.zeros(2, 4), w, torch.zeros(12, 4)),
    "vmap": lambda x, w: F.linear(torch.vmap(torch.sin)(x), w), "a new parameter": lambda x, w: x @ nn.Parameter(w).T,
    "numpy": lambda x, w: torch.from_numpy(x.numpy()) @ w.T, "looked up": lambda x, w: w.T[x.argmax(1)],
    "inference mode": lambda x, w: torch.inference_mode()(F.linear)(x, w),
}


def _attention(x, w):
    return F.multi_head_attention_forward(x, x, x, 10, 2, torch.cat([w[:10], w[:10], w[:10]]), None, None, None, False,
                                          0.0, torch.eye(10), None)[0]


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.w, self.out = nn.Parameter(torch.randn(12, 10, generator=torch.Generator().manual_seed(0))), forward

    def forward(self, x):
        return self.out(x, self.w)


def rows(module, x=None):
    """Layer -> its row, in another place than that in which it was looked at."""
    in_use = WeightsInUse(module, torch.randn(2, 10) if x is None else x)
    [(found, _)] = layer_rows(matrices(module, in_use.computed, in_use.doubts),
                              [in_use({**dict(module.named_parameters()), **dict(module.named_buffers())})])
    return {row["layer"]: row for row in found}


@pytest.mark.parametrize("way", PRODUCTS)
def test_the_weight_in_use_whatever_function_multiplies_by_it(way):
    model = Net(lambda x, w: PRODUCTS[way](x, w.tanh() * 2))
    used = model.w.detach().tanh() * 2
    if "attention_forward" in way:
        used = torch.cat([used[:10]] * 3)
    row = rows(model)["w"]
    assert row["frobenius_norm"] == pytest.approx(used.norm().item(), rel=1e-5)
    assert row["spectral_norm"] == pytest.approx(torch.linalg.matrix_norm(used, 2).item(), rel=1e-5)
    assert "as stored" not in (row["reason"] or "")
    plain = Net(PRODUCTS[way])
    row = rows(plain)["w"]
    if "attention_forward" not in way:
        assert row["frobenius_norm"] == pytest.approx(plain.w.norm().item(), rel=1e-5)
        assert "as stored" not in (row["reason"] or "")


@pytest.mark.parametrize("forward", [
    lambda x, w: (x[:, None] * w.tanh()).sum(-1), lambda x, w: x + w[:2, :10],
    lambda x, w: torch.stack([torch.dot(x[0], row) for row in w.tanh()]),
    lambda x, w: F.linear(x, torch.tensor(w.tanh().tolist())), lambda x, w: x])
def test_a_parameter_that_is_not_seen_to_multiply_says_so(forward):
    row = rows(Net(forward))["w"]
    assert row["reason"].startswith(UNSEEN) and row["rows"] == 12


def test_a_pass_that_cannot_be_watched_says_so():
    def forward(x, w):
        if torch._C._len_torch_function_stack():
            raise ValueError("not here")
        return x @ w.T
    assert "cannot be followed" in rows(Net(forward))["w"]["reason"]


class Dora(nn.Module):
    def __init__(self, how):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.w, self.a, self.b, self.mag = (nn.Parameter(torch.randn(*shape, generator=draw))
                                            for shape in ((12, 10), (3, 10), (12, 3), (12, 1)))
        self.how, self.out = how, nn.Linear(12, 3)

    def made(self):
        v = self.w + 2 * self.b @ self.a
        return self.mag * v / v.norm(dim=1, keepdim=True).detach()

    def forward(self, x):
        return self.out(torch.tanh(F.linear(x, self.made()) if self.how == "weight" else self.scaled(x)))

    def scaled(self, x):
        v = self.w + 2 * self.b @ self.a
        return F.linear(x, v) * (self.mag / v.norm(dim=1, keepdim=True)).T


class DoraLayer(Dora):
    def __init__(self, how):
        super().__init__(how)
        self.mag, self.out = nn.Parameter(self.mag[:, 0].detach()), None

    def made(self):
        v = self.w + 2 * self.b @ self.a
        return v * (self.mag / v.norm(dim=1))[:, None]

    def scaled(self, x):
        v = self.w + 2 * self.b @ self.a
        return F.linear(x, v) * (self.mag / v.norm(dim=1))

    def forward(self, x):
        return self.scaled(x)


@pytest.mark.parametrize("model", [Dora("weight"), DoraLayer("output")])
def test_an_adapter_that_is_normed_is_measured_as_it_is_in_use(model):
    found = rows(model)
    name = next(iter(found))
    assert [*found][1:] == ([] if isinstance(model, DoraLayer) else ["out"])
    assert found[name]["frobenius_norm"] == pytest.approx(model.made().norm().item(), rel=1e-5)
    assert found[name]["reason"] is None or "scaled" not in found[name]["reason"]


def test_a_factor_on_the_output_that_is_made_of_the_weight_is_told():
    found = rows(Dora("output"))
    assert found["w"]["reason"].startswith(SCALED) and SCALED not in (found["out"]["reason"] or "")
    assert rows(Net(lambda x, w: F.linear(x, w) / w.norm(dim=1)))["w"]["reason"].startswith(SCALED)
    assert rows(Net(lambda x, w: F.linear(x, w) * 3))["w"]["reason"] == "alpha: the tail is no power law"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_beside_learned_states_and_tokens_are_not_doubted(dtype):
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.cell = nn.LSTM(10, 6, batch_first=True), nn.GRUCell(6, 6)
            self.state, self.query = nn.Parameter(torch.zeros(1, 1, 6)), nn.Parameter(torch.zeros(1, 3, 6))
            self.attend = nn.MultiheadAttention(6, 2, kdim=10, vdim=10, batch_first=True)

        def forward(self, x):
            state = self.state.repeat(1, len(x), 1)
            h = self.cell(self.rnn(x[:, None], (state, state))[0][:, 0], self.state[0].expand(len(x), 6))
            return h + self.attend(self.query.expand(len(x), 3, 6), x[:, None], x[:, None])[0].mean(1)
    found = rows(Learned().to(dtype), torch.randn(2, 10, dtype=dtype))
    assert {layer for layer, row in found.items() if "as stored" in (row["reason"] or "")} == {"state", "query"}
