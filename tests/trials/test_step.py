"""The training step: the nine places, their order, and what reaches each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from trials.errors import UserError
from trials.knobs.base import PLACES, Knob, Moment, places
from trials.network import Network, tensors
from trials.optimizers.base import Params
from trials.optimizers.sgd import SGD
from trials.schedules.constant import Constant
from trials.step import Batch, Step
from trials.streams import Stream
from trials.tasks.base import Data

torch.set_num_threads(1)


def regression(n: int = 8, d: int = 3) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return Data(x, y, x, y, None)


def moment(step: int = 0) -> Moment:
    return Moment(step, Stream.of(0, "knob.test"), {})


def one_step(model: nn.Module, data: Data, knobs: dict[str, Knob], lr: float = 0.1) -> tuple[float, Params, Params]:
    """(loss, gradient, parameters after the step)."""
    network = Network(model.to(torch.float64))
    params, buffers = tensors(network.module)
    sgd = SGD(lr=lr)
    step = Step(network, data, sgd, Constant(), knobs, total=1)
    loss, grads = step(params, buffers, sgd.init(params), Batch(data.x_train, data.target(data.y_train)), 0,
                       {name: moment() for name in knobs})
    return float(loss), grads, params


def linear(weight: list[float]) -> nn.Module:
    module = nn.Linear(len(weight), 1, bias=False)
    module.weight.data = torch.tensor([weight], dtype=torch.float64)
    return module


def test_plain_step_is_gradient_descent_by_hand() -> None:
    data, w = regression(), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    residual = data.x_train @ w - data.y_train[:, 0]
    gradient = data.x_train.T @ residual / len(residual)  # of the mean of half the squared residual
    loss, _, params = one_step(linear(w.tolist()), data, {}, lr=0.1)
    assert loss == pytest.approx(float(0.5 * residual.square().mean()), rel=1e-12)
    torch.testing.assert_close(params["weight"][0], w - 0.1 * gradient, rtol=1e-12, atol=0)


def test_cross_entropy_matches_torch() -> None:
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    data = Data(x, y, x, y, 3)
    model = nn.Linear(4, 3).to(torch.float64)
    expected = nn.functional.cross_entropy(model(x), y)
    loss, _, _ = one_step(model, data, {})
    assert loss == pytest.approx(expected.item(), rel=1e-12)


@dataclass(frozen=True)
class Spy(Knob):
    """Writes down each place as it is reached."""

    seen: list[str] = field(default_factory=list)

    def input(self, x_B, moment):  # type: ignore[no-untyped-def]
        self.seen.append("input")
        return x_B

    def target(self, target_BC, moment):  # type: ignore[no-untyped-def]
        self.seen.append("target")
        return target_BC

    def weights(self, params, moment):  # type: ignore[no-untyped-def]
        self.seen.append("weights")
        return params

    def activation(self, h_B, site, moment):  # type: ignore[no-untyped-def]
        self.seen.append(f"activation {site}")
        return h_B

    def loss(self, loss_B, output_BC, target_BC, moment):  # type: ignore[no-untyped-def]
        self.seen.append("loss")
        return loss_B

    def penalty(self, params, moment):  # type: ignore[no-untyped-def]
        self.seen.append("penalty")
        return torch.zeros(())

    def sharpness(self, gradient, params, moment):  # type: ignore[no-untyped-def]
        self.seen.append("sharpness")
        return gradient(params)

    def gradient(self, grads, params, moment):  # type: ignore[no-untyped-def]
        self.seen.append("gradient")
        return grads

    def update(self, params, moment):  # type: ignore[no-untyped-def]
        self.seen.append("update")


def test_every_place_is_reached_once_and_in_order() -> None:
    spy = Spy()
    one_step(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), regression(),
             {"spy": spy})
    assert spy.seen == ["sharpness", "input", "target", "weights", "activation 0", "activation 1", "loss", "penalty",
                        "gradient", "update"]
    assert places(Spy) == PLACES[1:]  # "initial" is before the first step
    assert places(Knob) == ()


def test_a_spy_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with_spy = one_step(model, regression(), {"spy": Spy()})
    without = one_step(model, regression(), {})
    assert with_spy[0] == without[0]
    for name, value in without[2].items():
        assert torch.equal(value, with_spy[2][name])


@dataclass(frozen=True)
class At(Knob):
    """One change at one place, with a known effect."""

    place: str
    factor: float

    def loss(self, loss_B, output_BC, target_BC, moment):  # type: ignore[no-untyped-def]
        return self.factor * loss_B if self.place == "loss" else loss_B

    def penalty(self, params, moment):  # type: ignore[no-untyped-def]
        return self.factor * params["weight"].square().sum() if self.place == "penalty" else torch.zeros(())

    def weights(self, params, moment):  # type: ignore[no-untyped-def]
        return {k: self.factor * v for k, v in params.items()} if self.place == "weights" else params

    def gradient(self, grads, params, moment):  # type: ignore[no-untyped-def]
        return {k: self.factor * v for k, v in grads.items()} if self.place == "gradient" else grads

    def update(self, params, moment):  # type: ignore[no-untyped-def]
        if self.place == "update":
            params["weight"].mul_(self.factor)


def test_effect_of_each_place_on_a_linear_model() -> None:
    data, w, lr = regression(), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), 0.1
    x, y = data.x_train, data.y_train[:, 0]

    def gradient(at: torch.Tensor) -> torch.Tensor:
        return x.T @ (x @ at - y) / len(y)

    expected: dict[str, Any] = {
        "loss": w - lr * 3 * gradient(w),
        "penalty": w - lr * (gradient(w) + 2 * 3 * w),
        "weights": w - lr * 3 * gradient(3 * w),  # d/dw L(3w) = 3 L'(3w); the weights themselves stay
        "gradient": w - lr * 3 * gradient(w),
        "update": 3 * (w - lr * gradient(w)),
    }
    for place, after in expected.items():
        _, _, params = one_step(linear(w.tolist()), data, {"k": At(place, 3.0)}, lr)
        torch.testing.assert_close(params["weight"][0], after, rtol=1e-12, atol=1e-15)


def test_knobs_at_one_place_apply_in_the_order_named() -> None:
    w = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)

    @dataclass(frozen=True)
    class Shift(Knob):
        by: float

        def update(self, params, moment):  # type: ignore[no-untyped-def]
            params["weight"].add_(self.by)

    _, _, first = one_step(linear(w.tolist()), regression(), {"shift": Shift(1.0), "scale": At("update", 2.0)})
    _, _, second = one_step(linear(w.tolist()), regression(), {"scale": At("update", 2.0), "shift": Shift(1.0)})
    torch.testing.assert_close(first["weight"] - second["weight"], torch.full((1, 3), 1.0, dtype=torch.float64))


def test_unused_parameters_stay_and_do_not_raise() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 1), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.used(x)
            return out

    model = Idle()
    before = model.idle.weight.detach().clone().double()
    _, grads, params = one_step(model, regression(), {})
    assert torch.equal(params["idle.weight"], before)
    assert not grads["idle.weight"].any()


def test_activation_knob_without_a_nonlinearity_is_refused() -> None:
    @dataclass(frozen=True)
    class Halve(Knob):
        def activation(self, h_B, site, moment):  # type: ignore[no-untyped-def]
            return h_B / 2

    with pytest.raises(UserError, match=r"trial\.knobs\.half: .*no nonlinearity.*nn\.ReLU"):
        one_step(nn.Linear(3, 1), regression(), {"half": Halve()})


def test_target_knob_on_a_regression_is_refused() -> None:
    @dataclass(frozen=True)
    class Relabel(Knob):
        needs_classes = True

        def target(self, target_BC, moment):  # type: ignore[no-untyped-def]
            return target_BC

    with pytest.raises(UserError, match=r"trial\.knobs\.relabel: .*regression"):
        one_step(nn.Linear(3, 1), regression(), {"relabel": Relabel()})


def test_a_nonlinearity_used_twice_is_two_sites() -> None:
    relu = nn.ReLU()
    spy = Spy()
    one_step(nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 1)), regression(), {"spy": spy})
    assert [seen for seen in spy.seen if seen.startswith("activation")] == ["activation 0", "activation 1"]
