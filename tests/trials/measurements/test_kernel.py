"""The empirical tangent kernel against exact Jacobians and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import classes, mlp, randn, regression, snapshot_of
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call

from trials.measurements import kernel, tangent
from trials.measurements.base import Snapshot
from trials.measurements.probe import probe
from trials.models.mini_alexnet import MiniAlexNet
from trials.tasks.base import Data


def exact(snapshot: Snapshot, x: Tensor, names: list[str]) -> Tensor:
    """K from the Jacobian of all outputs with respect to these parameters."""
    def outputs(*values: Tensor) -> Tensor:
        result: Tensor = functional_call(snapshot.network.module,
                                         {**snapshot.params, **dict(zip(names, values, strict=True))}, (x,))
        return result
    parts = jacobian(outputs, tuple(snapshot.params[name] for name in names))
    full = torch.cat([part.flatten(2) for part in parts], 2)  # (N, C, P)
    return torch.einsum("icp,jcp->ij", full, full)


@pytest.mark.parametrize("entries", [2**26, 5000, 1])  # all at once, in blocks of a few samples, one by one
def test_against_the_exact_jacobian(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "ENTRIES", entries)
    snapshot = snapshot_of(mlp(6, 16, 16, 3, activation=nn.Tanh), classes(n=11))
    x = snapshot.data.x_train
    found = kernel.kernels(snapshot.network, snapshot.params, {}, x, 3)
    assert list(found) == ["fc1", "fc2", "fc3"]
    for layer in found:
        torch.testing.assert_close(found[layer], exact(snapshot, x, [f"{layer}.weight", f"{layer}.bias"]))
    torch.testing.assert_close(torch.stack(list(found.values())).sum(0), exact(snapshot, x, list(snapshot.params)))


def test_a_linear_model_has_the_gram_matrix_of_its_inputs() -> None:
    snapshot = snapshot_of(nn.Linear(6, 3, bias=False), classes())
    x, _ = probe(snapshot.data, kernel.PROBE)
    (found,) = kernel.kernels(snapshot.network, snapshot.params, {}, x, 3).values()
    torch.testing.assert_close(found, 3.0 * x @ x.T)  # X X^T (x) I, traced over three outputs
    gram = np.linalg.eigvalsh(3.0 * (x @ x.T).numpy())
    p = gram[gram > 1e-9] / gram.sum()
    row = kernel.MEASUREMENT.function(snapshot)
    assert row["ntk_lambda_max"] == pytest.approx(gram[-1] / len(x))
    assert row["ntk_effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-9)
    moved = {"weight": snapshot.params["weight"] + 1.0}
    assert kernel.MEASUREMENT.function(snapshot_of(snapshot.network.module, snapshot.data, moved))["ntk_drift"] == 0.0


def test_drift() -> None:
    module, data = mlp(6, 8, 3, activation=nn.Tanh), classes(n=20)
    assert kernel.MEASUREMENT.function(snapshot_of(module, data))["ntk_drift"] == 0.0
    params = {name: value + 0.3 * randn(*value.shape) for name, value in snapshot_of(module, data).params.items()}
    snapshot = snapshot_of(module, data, params)
    x, _ = probe(data, kernel.PROBE)
    now, initial = exact(snapshot, x, list(params)), exact(snapshot_of(module, data), x, list(params))
    expected = float((now - initial).norm() / initial.norm())
    assert kernel.MEASUREMENT.function(snapshot)["ntk_drift"] == pytest.approx(expected, rel=1e-9)
    assert expected > 0.1


def test_alignment() -> None:
    root = randn(10, 10)
    matrix, y = root @ root.T, randn(10, 1, seed=1)
    y = y - y.mean()
    expected = float(y.T @ matrix @ y / (matrix.norm() * y.square().sum()))
    assert float(kernel.alignment(matrix, y)) == pytest.approx(expected, rel=1e-12)
    assert float(kernel.alignment(matrix, y + 5.0)) == pytest.approx(expected, rel=1e-9)
    assert float(kernel.alignment(3.0 * y @ y.T, y)) == pytest.approx(1.0)
    one_hot = torch.eye(2, dtype=torch.float64)[torch.arange(10) % 2]  # two balanced classes are labels -1, 1
    signs = 2.0 * one_hot[:, :1] - 1.0
    assert float(kernel.alignment(matrix, one_hot)) == pytest.approx(float(kernel.alignment(matrix, signs)), rel=1e-12)


def test_alignment_of_the_model_and_of_its_layers() -> None:
    snapshot = snapshot_of(mlp(6, 8, 1, activation=nn.Tanh), regression(n=20))
    x, y = probe(snapshot.data, kernel.PROBE)
    y = y - y.mean()
    def aligned(names: list[str]) -> float:
        matrix = exact(snapshot, x, names)
        return float(y.T @ matrix @ y / (matrix.norm() * y.square().sum()))
    assert kernel.MEASUREMENT.function(snapshot)["ntk_alignment"] == pytest.approx(aligned(list(snapshot.params)))
    layers = tangent.MEASUREMENT.function(snapshot)
    assert set(layers) == {"fc1", "fc2"}
    for layer, row in layers.items():
        assert row["tangent_alignment"] == pytest.approx(aligned([f"{layer}.weight", f"{layer}.bias"]))


def test_convolutions_in_float32() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = MiniAlexNet(channels=2, width=4).build((1, 6, 6), 3)
    data = Data(randn(9, 1, 6, 6).float(), torch.arange(9) % 3, randn(2, 1, 6, 6).float(), torch.arange(2), 3)
    snapshot = snapshot_of(module, data)
    x, _ = probe(data, kernel.PROBE)
    found = kernel.kernels(snapshot.network, snapshot.params, {}, x, 3)
    total = torch.stack(list(found.values())).sum(0)
    assert total.dtype == torch.float64 and list(found) == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    torch.testing.assert_close(total, exact(snapshot, x, list(snapshot.params)).double(), rtol=1e-4, atol=1e-4)


def test_dropout_of_the_model_is_off_and_a_model_that_cannot_be_mapped_is_null() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    assert kernel.MEASUREMENT.function(snapshot_of(module, classes()))["ntk_drift"] == 0.0
    assert module.training

    class Branches(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if float(x.sum()) > 0 else super().forward(2 * x)
    snapshot = snapshot_of(Branches(6, 3), classes())
    assert set(kernel.MEASUREMENT.function(snapshot).values()) == {None}
    assert tangent.MEASUREMENT.function(snapshot) == {}
