"""Multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from trials.errors import UserError
from trials.fields import choice, count, flag, real
from trials.models.base import MODELS, Model
from trials.models.init import INITS, initialize

DEEPEST = 1000
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


@MODELS.register("mlp")
@dataclass(frozen=True)
class MLP(Model):
    """Fully connected layers fc1, act1, fc2, ..., fc{depth + 1} on the flattened input; depth 0 is a linear model
    (softmax regression, for classes). ``init: torch``, the default: uniform in +-1/sqrt(inputs of the layer)."""

    width: int = count(512, low=1, help="units of each hidden layer")
    depth: int = count(2, high=DEEPEST, help="number of hidden layers")
    activation: str = choice("relu", tuple(ACTIVATIONS), help="hidden nonlinearity")
    bias: bool = flag(True, help="whether the layers have biases")
    init: str = choice("torch", tuple(INITS), help="distribution of initial weights")
    bias_init: float = real(0.0, help="initial value of biases (with init torch: added to its own)")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        if self.bias_init and not self.bias:
            raise UserError("model mlp: bias_init has no biases to act on; leave it out, or set bias to true")
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = math.prod(input_shape)
        for i in range(1, self.depth + 1):
            layers[f"fc{i}"] = nn.Linear(inputs, self.width, bias=self.bias)
            layers[f"act{i}"] = ACTIVATIONS[self.activation]()
            inputs = self.width
        layers[f"fc{self.depth + 1}"] = nn.Linear(inputs, outputs, bias=self.bias)
        return initialize(nn.Sequential(layers), self.init, self.bias_init)
