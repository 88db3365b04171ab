"""Gauss-Newton products, top eigenvalue and trace against J^T L'' J written out."""

from __future__ import annotations

import pytest
import torch
from curvature_cases import CASES, F64, classification, exact_hessian, flat, snapshot
from torch import nn

from trials.measurements.ggn import MEASUREMENT, GaussNewton
from trials.measurements.objective import objective
from trials.tasks.base import Data


def exact_ggn(module: nn.Module, data: Data) -> torch.Tensor:
    names, shapes = zip(*((name, p.shape) for name, p in module.named_parameters()), strict=True)

    def outputs(theta: torch.Tensor) -> torch.Tensor:
        pieces = theta.split([shape.numel() for shape in shapes])
        params = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return torch.func.functional_call(module, params, (data.x_train,))

    theta = flat(module)
    jacobian_nCP, out = torch.func.jacrev(outputs)(theta), outputs(theta)
    if data.classes is None:
        inner = torch.eye(out.shape[1], dtype=F64).expand(len(out), -1, -1)
    else:
        p = out.softmax(1)
        inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("ncp,ncd,ndq->pq", jacobian_nCP, inner, jacobian_nCP) / len(out)


@pytest.mark.parametrize("case", CASES)
def test_products_and_columns(case: str) -> None:
    module, data = CASES[case]
    shot, exact = snapshot(module, data), exact_ggn(module, data)
    assert torch.linalg.matrix_norm(exact - exact_hessian(module, data)) > 1e-2  # they are not the same here
    operator = GaussNewton(objective(shot))
    for v in torch.eye(len(exact), dtype=F64):
        torch.testing.assert_close(operator(v), exact @ v, rtol=1e-10, atol=1e-12)
    row = MEASUREMENT.function(shot)
    assert set(row) == {column.name for column in MEASUREMENT.columns}
    assert row["ggn_max"] == pytest.approx(torch.linalg.eigvalsh(exact)[-1].item(), rel=1e-5)
    error = row["ggn_trace_error"]
    assert abs(row["ggn_trace"] - exact.trace().item()) < 5 * error < exact.trace().item()


def test_of_a_linear_model_it_is_the_hessian() -> None:
    data = classification()
    module = nn.Linear(3, 3, dtype=F64)
    operator, exact = GaussNewton(objective(snapshot(module, data))), exact_hessian(module, data)
    torch.testing.assert_close(torch.stack([operator(v) for v in torch.eye(len(exact), dtype=F64)]), exact)
