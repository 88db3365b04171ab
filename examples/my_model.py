"""A model of your own: a function that is given the shape of an input, the number of outputs, and its parameters."""

import math

from torch import nn


def build(input_shape, outputs, width=64):
    """A two-layer perceptron. Where plain torch code has F.relu, write nn.ReLU: knobs and measurements find modules,
    not functions. Weights come from torch's global generator, which is seeded for each trial."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )
