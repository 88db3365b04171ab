"""Models: names, shapes, hand-computed outputs, and the same function packed."""

from dataclasses import fields

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from trials.errors import UserError
from trials.fields import parse
from trials.models.base import MODELS


def build(name, input_shape, outputs, **params):
    torch.manual_seed(0)
    return parse(MODELS.get(name, "here"), params, "here").build(input_shape, outputs)


def names(module):
    return [name for name, _ in module.named_children()]


BUILT = {
    "mlp": lambda: build("mlp", (1, 8, 8), 10, width=12, depth=2),
    "mlp_glorot": lambda: build("mlp", (1, 8, 8), 10, width=12, depth=1, init="glorot_normal", bias_init=0.1),
    "softmax": lambda: build("mlp", (6,), 3, depth=0),
    "mini_alexnet": lambda: build("mini_alexnet", (1, 8, 8), 10, channels=3, width=8),
    "diagonal": lambda: build("diagonal", (7,), 1, depth=3, alpha=0.5),
}


def test_mlp():
    net = build("mlp", (1, 8, 8), 10, width=12, depth=2)
    assert names(net) == ["flatten", "fc1", "act1", "fc2", "act2", "fc3"]
    assert [tuple(p.shape) for p in net.parameters()] == [(12, 64), (12,), (12, 12), (12,), (10, 12), (10,)]
    x = torch.randn(5, 1, 8, 8)
    by_hand = x.reshape(5, 64)
    for layer in (net.fc1, net.fc2):
        by_hand = (by_hand @ layer.weight.T + layer.bias).clamp(min=0)
    assert torch.allclose(net(x), by_hand @ net.fc3.weight.T + net.fc3.bias, atol=1e-6)


def test_a_depth_that_cannot_be_built_in_a_moment_is_refused():
    with pytest.raises(UserError, match=r"depth: expected a whole number in \[0, 1000\], got 1000000"):
        build("mlp", (6,), 3, depth=10**6)


def test_mlp_of_depth_0_is_linear():
    net = build("mlp", (2, 3), 4, depth=0)
    assert names(net) == ["flatten", "fc1"]
    x = torch.randn(5, 2, 3)
    assert torch.allclose(net(x), x.reshape(5, 6) @ net.fc1.weight.T + net.fc1.bias, atol=1e-6)


@pytest.mark.parametrize(("activation", "module"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("gelu", nn.GELU)])
def test_mlp_activation_and_bias(activation, module):
    net = build("mlp", (4,), 2, activation=activation, bias=False, depth=3)
    assert [type(child) for child in net.children()].count(module) == 3
    assert [name for name, _ in net.named_parameters()] == [f"fc{i}.weight" for i in (1, 2, 3, 4)]


@pytest.mark.parametrize(("shape", "kernel", "pooled"), [
    ((1, 8, 8), 3, 2 * 2), ((3, 28, 28), 5, 7 * 7), ((3, 32, 32), 5, 8 * 8), ((2, 5, 17), 3, 2 * 5),
    ((1, 4, 4), 3, 1)])
def test_mini_alexnet(shape, kernel, pooled):
    net = build("mini_alexnet", shape, 10, channels=3, width=8)
    assert names(net) == ["conv1", "act1", "pool1", "conv2", "act2", "pool2", "flatten", "fc1", "act3", "fc2", "act4",
                          "fc3"]
    weights = {name: tuple(p.shape) for name, p in net.named_parameters() if p.ndim > 1}
    assert weights == {"conv1.weight": (3, shape[0], kernel, kernel), "conv2.weight": (6, 3, kernel, kernel),
                       "fc1.weight": (8, 6 * pooled), "fc2.weight": (4, 8), "fc3.weight": (10, 4)}
    assert net(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(("init", "variance", "uniform"), [
    ("torch", 1 / (3 * 200), True), ("glorot_normal", 2 / 600, False), ("glorot_uniform", 2 / 600, True),
    ("he_normal", 2 / 200, False), ("he_uniform", 2 / 200, True)])
def test_initial_weights(init, variance, uniform):
    """By their formulas, for 200 inputs and 400 units; a uniform law of this variance ends at sqrt(3 variance)."""
    weight = build("mlp", (200,), 10, width=400, depth=1, init=init).fc1.weight.detach()
    assert weight.var().item() == pytest.approx(variance, rel=0.02) and abs(weight.mean()) < 1e-3
    assert (weight.abs().max().item() <= (3 * variance) ** 0.5 + 1e-7) == uniform


def test_initial_biases():
    torch_own = build("mlp", (4,), 2, width=5).fc1.bias
    assert torch.allclose(build("mlp", (4,), 2, width=5, bias_init=0.1).fc1.bias, torch_own + 0.1)
    assert build("mlp", (4,), 2, init="he_normal", bias_init=0.1).fc3.bias.tolist() == pytest.approx([0.1, 0.1])
    assert build("mlp", (4,), 2, init="glorot_normal").fc1.bias.abs().max() == 0


def test_an_init_that_is_torchs_changes_nothing():
    """Weights of trials that are done already."""
    torch.manual_seed(0)
    own = [nn.Linear(4, 3), nn.Linear(3, 2)]
    net = build("mlp", (4,), 2, width=3, depth=1)
    assert torch.equal(net.fc1.weight, own[0].weight) and torch.equal(net.fc2.bias, own[1].bias)


@pytest.mark.parametrize(("shape", "pooled"), [((3, 28, 28), 16), ((3, 32, 32), 16), ((1, 8, 8), 1), ((2, 3, 10), 2)])
def test_mini_alexnet_of_martin_and_mahoney(shape, pooled):
    """fc1 of 4096 x 384 and fc2 of 384 x 192 for the authors' images."""
    net = build("mini_alexnet_bn", shape, 10)
    assert names(net) == ["conv1", "act1", "pool1", "norm1", "conv2", "act2", "pool2", "norm2", "flatten", "fc1",
                          "act3", "fc2", "act4", "fc3"]
    weights = {name: tuple(p.shape) for name, p in net.named_parameters() if p.ndim > 1}
    assert weights == {"conv1.weight": (96, shape[0], 5, 5), "conv2.weight": (256, 96, 5, 5),
                       "fc1.weight": (384, 256 * pooled), "fc2.weight": (192, 384), "fc3.weight": (10, 192)}
    assert net.fc1.weight.var().item() == pytest.approx(2 / (384 + 256 * pooled), rel=0.03)
    assert torch.equal(net.fc1.bias, torch.full((384,), 0.1)) and net.conv2.bias[5].item() == pytest.approx(0.1)
    assert net(torch.randn(2, *shape)).shape == (2, 10)


def test_diagonal():
    net = build("diagonal", (2,), 1, depth=3, alpha=0.5)
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert torch.equal(net(x), torch.zeros(2, 1))
    assert {name: p.tolist() for name, p in net.named_parameters()} == {"plus": [[0.5] * 2], "minus": [[0.5] * 2]}
    with torch.no_grad():
        net.plus.copy_(torch.tensor([[2.0, 1.0]]))
        net.minus.copy_(torch.tensor([[1.0, 3.0]]))
    assert net(x).flatten().tolist() == [1 * (8 - 1) + 2 * (1 - 27), 3 * (8 - 1) + 5 * (1 - 27)]


@pytest.mark.parametrize(("name", "shape", "outputs", "line"), [
    ("mini_alexnet", (64,), 10, r"model mini_alexnet: needs images .*\(64,\); use the model mlp"),
    ("mini_alexnet", (1, 3, 8), 10, r"model mini_alexnet: needs images .*at least 4 pixels .*\(1, 3, 8\)"),
    ("mini_alexnet_bn", (64,), 10, r"model mini_alexnet_bn: needs images .*\(64,\); use the model mlp"),
    ("diagonal", (64,), 10, "model diagonal: has one output, but the task needs 10; use "),
])
def test_errors(name, shape, outputs, line):
    with pytest.raises(UserError, match=line):
        build(name, shape, outputs)


def test_an_initial_bias_without_biases_is_refused():
    with pytest.raises(UserError, match="bias_init has no biases to act on"):
        build("mlp", (4,), 2, bias=False, bias_init=0.1)


@pytest.mark.parametrize("name", BUILT)
def test_initialized_from_the_global_generator(name):
    first, second = BUILT[name](), BUILT[name]()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("name", BUILT)
def test_packed_is_alone(name):
    """Output and gradient of three stacked networks; warnings are errors, so nothing falls back to a loop."""
    nets = [BUILT[name]().double() for _ in range(3)]
    shape = {"softmax": (6,), "diagonal": (7,)}.get(name, (1, 8, 8))
    generator = torch.Generator().manual_seed(1)
    for net in nets:
        for p in net.parameters():
            p.data.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(3, 5, *shape, generator=generator, dtype=torch.float64)
    params, _ = stack_module_state(nets)

    def loss(params, x):
        return functional_call(nets[0], params, (x,)).square().sum()

    packed = vmap(grad(loss))({key: p.detach() for key, p in params.items()}, x)
    for lane, net in enumerate(nets):
        alone = torch.autograd.grad(net(x[lane]).square().sum(), list(net.parameters()))
        for (key, _), expected in zip(net.named_parameters(), alone, strict=True):
            assert expected.abs().max() > 0
            assert torch.allclose(packed[key][lane], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS.classes)
def test_documented(name):
    cls = MODELS.classes[name]
    assert cls.__doc__ and all(field.metadata["help"] for field in fields(cls))
