"""A model of your own: a function that is given the shape of an input, the number of outputs, and its parameters."""

import math
from collections import OrderedDict

from torch import nn


def build(input_shape, outputs, width=64):
    """A perceptron with two hidden layers. Where plain torch code calls F.relu it has nn.ReLU: knobs and measurements
    find modules, not functions. Weights come from torch's global generator, which is seeded for each trial."""
    return nn.Sequential(OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(math.prod(input_shape), width),
        relu1=nn.ReLU(),
        fc2=nn.Linear(width, width),
        relu2=nn.ReLU(),
        fc3=nn.Linear(width, outputs),
    ))
