"""The small AlexNet of Martin & Mahoney."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from trials.errors import UserError
from trials.fields import choice, count, real
from trials.models.base import MODELS, Model
from trials.models.init import INITS, initialize


@MODELS.register("mini_alexnet_bn")
@dataclass(frozen=True)
class MiniAlexNetBN(Model):
    """Two blocks of 5 x 5 convolution, ReLU, 3 x 3 max-pooling of stride 3 and batch normalization, then two hidden
    fully connected layers and the output: conv1, conv2, fc1, fc2, fc3.

    MiniAlexNet as Martin & Mahoney 2018 (arXiv 1810.01075, section 5) built it: Glorot normal weights, biases of 0.1.
    Images of 28 x 28 or 32 x 32 give their fc1 of 4096 inputs by 384 units, and fc2 of 384 by 192. Padding keeps the
    size in convolutions; each pooling divides it by 3, rounding up.
    """

    channels: int = count(96, low=1, help="channels of conv1")
    channels2: int = count(256, low=1, help="channels of conv2")
    width: int = count(384, low=2, help="units of fc1; fc2 has half as many")
    init: str = choice("glorot_normal", tuple(INITS), help="distribution of initial weights")
    bias_init: float = real(0.1, help="initial value of biases (with init torch: added to its own)")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        if len(input_shape) != 3:
            raise UserError("model mini_alexnet_bn: needs images of shape (channels, height, width), but the task's "
                            f"inputs are {input_shape}; use the model mlp")
        depth, height, width = input_shape
        pooled = self.channels2 * -(-height // 9) * -(-width // 9)
        return initialize(nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(depth, self.channels, 5, padding="same"), act1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, 3, ceil_mode=True), norm1=nn.BatchNorm2d(self.channels),
            conv2=nn.Conv2d(self.channels, self.channels2, 5, padding="same"), act2=nn.ReLU(),
            pool2=nn.MaxPool2d(3, 3, ceil_mode=True), norm2=nn.BatchNorm2d(self.channels2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(pooled, self.width), act3=nn.ReLU(),
            fc2=nn.Linear(self.width, self.width // 2), act4=nn.ReLU(),
            fc3=nn.Linear(self.width // 2, outputs),
        )), self.init, self.bias_init)
