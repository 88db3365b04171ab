"""Multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from trials.fields import choice, count, flag
from trials.models.base import MODELS, Model

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


@MODELS.register("mlp")
@dataclass(frozen=True)
class MLP(Model):
    """Fully connected layers fc1, act1, fc2, ..., fc{depth + 1} on the flattened input; depth 0 is a linear model
    (softmax regression, for classes). Initialized as torch does: uniform in +-1/sqrt(inputs of the layer)."""

    width: int = count(512, low=1, help="units of each hidden layer")
    depth: int = count(2, help="number of hidden layers")
    activation: str = choice("relu", tuple(ACTIVATIONS), help="hidden nonlinearity")
    bias: bool = flag(True, help="whether the layers have biases")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = math.prod(input_shape)
        for i in range(1, self.depth + 1):
            layers[f"fc{i}"] = nn.Linear(inputs, self.width, bias=self.bias)
            layers[f"act{i}"] = ACTIVATIONS[self.activation]()
            inputs = self.width
        layers[f"fc{self.depth + 1}"] = nn.Linear(inputs, outputs, bias=self.bias)
        return nn.Sequential(layers)
