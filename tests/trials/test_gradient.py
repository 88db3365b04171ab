"""Gradients under vmap, against torch.func and by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from trials import gradient
from trials.gradient import value_and_gradient
from trials.optimizers.base import Params


def function(params: Params, buffers: Params) -> Tensor:
    return (params["w"].sin() * params["v"]).sum()


@pytest.fixture(params=["levels", "torch.func"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch.func":
        monkeypatch.setattr(gradient, "levels", None)


def parameters() -> Params:
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(3, 4, generator=draw, dtype=torch.float64) for name in ("w", "v", "unused")}


def test_value_and_gradient_of_each_lane(way: None) -> None:
    params = parameters()
    values, grads = torch.func.vmap(lambda lane: value_and_gradient(function, lane, {}))(params)
    torch.testing.assert_close(values, (params["w"].sin() * params["v"]).sum(-1))
    torch.testing.assert_close(grads["w"], params["w"].cos() * params["v"])
    torch.testing.assert_close(grads["v"], params["w"].sin())
    assert ("unused" in grads) == (gradient.levels is None)  # torch.func's own has zeros there
    assert not grads.get("unused", torch.zeros(())).any()


def test_a_gradient_within_a_gradient(way: None) -> None:
    params = parameters()

    def size(outer: Params, buffers: Params) -> Tensor:
        return value_and_gradient(function, outer, {})[1]["w"].square().sum()

    _, grads = torch.func.vmap(lambda lane: value_and_gradient(size, lane, {}))(params)
    w, v = params["w"], params["v"]
    torch.testing.assert_close(grads["w"], -2.0 * w.cos() * v * w.sin() * v)


def test_what_is_done_to_buffers_is_done_to_each_lanes(way: None) -> None:
    params, buffers = parameters(), {"mean": torch.zeros(3, 4, dtype=torch.float64), "count": torch.arange(3)}

    def averaging(params: Params, buffers: Params) -> Tensor:
        buffers["mean"].add_(params["w"].detach())
        buffers["count"] = buffers["count"] + 1  # a new tensor
        return (params["w"] * params["w"] * buffers["count"]).sum()

    _, grads = torch.func.vmap(lambda lane, held: value_and_gradient(averaging, lane, held))(params, buffers)
    assert torch.equal(buffers["mean"], params["w"]) and buffers["count"].tolist() == [1, 2, 3]
    torch.testing.assert_close(grads["w"], 2.0 * params["w"] * torch.tensor([[1.0], [2.0], [3.0]]))


def test_after_an_error_gradients_work_as_before(way: None) -> None:
    def wrong(params: Params, buffers: Params) -> Tensor:
        raise RuntimeError("no")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="no"):
            value_and_gradient(wrong, parameters(), {})
    leaf = torch.ones(2, requires_grad=True)
    (leaf * 3.0).sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None and leaf.grad.tolist() == [3.0, 3.0]


def test_the_compiler_is_not_imported() -> None:
    code = ("import sys, torch; from trials.gradient import value_and_gradient; "
            "function = lambda params, buffers: params['w'].sin().sum(); "
            "torch.func.vmap(lambda w: value_and_gradient(function, {'w': w}, {}))(torch.ones(2, 3)); "
            "print('torch._dynamo' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
