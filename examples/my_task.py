"""A task of your own: a function of its parameters that gives the data, the same each time."""

import math

import torch

import trials


def spiral(samples=500, noise=0.1):
    """Two interleaved spirals in the plane, two classes; half as many samples again for testing."""
    def draw(n, seed):
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(n) % 2
        radius = torch.rand(n, generator=generator)
        angle = 3 * math.pi * radius + math.pi * y
        x = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        return x + noise * torch.randn(n, 2, generator=generator), y

    return trials.Data(*draw(samples, 0), *draw(samples // 2, 1), classes=2)
