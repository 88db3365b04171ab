"""A small convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from trials.errors import UserError
from trials.fields import count
from trials.models.base import MODELS, Model

SMALLEST = 4  # two halvings must leave something to convolve


@MODELS.register("mini_alexnet")
@dataclass(frozen=True)
class MiniAlexNet(Model):
    """Two blocks of convolution, ReLU and 3 x 3 max-pooling of stride 2, then two hidden fully connected layers and the
    output: conv1, conv2, fc1, fc2, fc3.

    The shape of the small AlexNet of Zhang et al. 2017 (arXiv 1611.03530, appendix A), without its local response
    normalization: 5 x 5 kernels there for images of 28 x 28, 3 x 3 here for images below 16 x 16. Padding keeps the
    size in convolutions; each pooling halves it, rounding up.
    """

    channels: int = count(32, low=1, help="channels of conv1; conv2 has twice as many")
    width: int = count(384, low=2, help="units of fc1; fc2 has half as many")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        if len(input_shape) != 3 or min(input_shape[1:]) < SMALLEST:
            raise UserError(f"model mini_alexnet: needs images of shape (channels, height, width), at least {SMALLEST} "
                            f"pixels each way, but the task's inputs are {input_shape}; use the model mlp")
        depth, height, width = input_shape
        kernel = 5 if min(height, width) >= 16 else 3
        first, second = self.channels, 2 * self.channels
        pooled = second * -(-height // 4) * -(-width // 4)
        return nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(depth, first, kernel, padding="same"), act1=nn.ReLU(), pool1=nn.MaxPool2d(3, 2, padding=1),
            conv2=nn.Conv2d(first, second, kernel, padding="same"), act2=nn.ReLU(), pool2=nn.MaxPool2d(3, 2, padding=1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(pooled, self.width), act3=nn.ReLU(),
            fc2=nn.Linear(self.width, self.width // 2), act4=nn.ReLU(),
            fc3=nn.Linear(self.width // 2, outputs),
        ))
