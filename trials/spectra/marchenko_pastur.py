"""The Marchenko-Pastur law: the limiting density of eigenvalues of W^T W / N for noise of unit variance.

With ratio g = M / N <= 1 its support is [a, b], a, b = (1 -+ sqrt g)^2, and its density
sqrt((b - x)(x - a)) / (2 pi g x) (Marchenko & Pastur 1967).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def edges(ratio: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """(lower, upper) edge at unit variance for ``ratio`` = M / N."""
    root = ratio**0.5
    return (1.0 - root) ** 2, (1.0 + root) ** 2


def cdf(x: Tensor, ratio: Tensor) -> Tensor:
    """Distribution function at ``x``, float64, broadcast against ``ratio`` = M / N in (0, 1].

    The density integrated in closed form: with u = (x - a)(b - x),
    F = 1/2 + [sqrt u + (1 + g) asin((x - (1 + g)) / (2 sqrt g))
               - (1 - g) asin(((1 + g) x - (1 - g)^2) / (2 sqrt g x))] / (2 pi g).
    """
    low, high = edges(ratio)
    x = torch.minimum(torch.maximum(x, torch.as_tensor(low)), torch.as_tensor(high))
    root = ratio.sqrt()
    area = ((x - low) * (high - x)).clamp(min=0.0).sqrt()
    first = torch.asin(((x - 1.0 - ratio) / (2.0 * root)).clamp(-1.0, 1.0))
    inner = ((1.0 + ratio) * x - (1.0 - ratio) ** 2) / (2.0 * root * x.clamp(min=1e-300))
    second = torch.asin(inner.clamp(-1.0, 1.0))
    return 0.5 + (area + (1.0 + ratio) * first - (1.0 - ratio) * second) / (2.0 * math.pi * ratio)
