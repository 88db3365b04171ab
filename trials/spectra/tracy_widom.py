"""The Tracy-Widom law of the largest eigenvalue of noise, at finite size and with the noise level estimated.

For a real N x M matrix of independent entries of variance s^2, N lambda_1 / s^2 (lambda_1 of W^T W / N) is close to
center + scale x, with x of the Tracy-Widom law of order 1 (Johnstone 2001) and
center = (sqrt(N - 1/2) + sqrt(M - 1/2))^2,
scale = (sqrt(N - 1/2) + sqrt(M - 1/2)) (1 / sqrt(N - 1/2) + 1 / sqrt(M - 1/2))^(1/3),
second-order accurate (Ma 2012). Asymptotically scale / N = Q^(-1/2) lambda_plus^(2/3) M^(-2/3) at unit variance.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# Chiani 2014 (arXiv 1209.3394): the law of order 1 is within 1.2e-3 of a gamma law of this shape, scale and shift.
_SHAPE, _SCALE, _SHIFT = 46.446, 0.186054, 9.84801
_GRID = np.linspace(-6.0, 8.0, 2801)


def cdf(x: Tensor) -> Tensor:
    """Distribution function at ``x`` (float64)."""
    below: Tensor = torch.special.gammainc(torch.full_like(x, _SHAPE), ((x + _SHIFT) / _SCALE).clamp(min=0.0))
    return below


def center_scale(rows: float | Array, cols: float | Array) -> tuple[Array, Array]:
    """Center and scale of N lambda_1 for noise of unit variance with these numbers of rows and columns."""
    n, m = np.sqrt(np.asarray(rows) - 0.5), np.sqrt(np.asarray(cols) - 0.5)
    return (n + m) ** 2, (n + m) * np.cbrt(1.0 / n + 1.0 / m)


def ratio_quantile(rows: Array, cols: Array, rate: float) -> Array:
    """x such that noise exceeds lambda_1 / s^2 = (center + scale x) / N with probability ``rate``, s^2 the mean square.

    The estimated level rises with lambda_1, so small matrices exceed the Tracy-Widom quantile less often than stated.
    To first order the law of the ratio is F - F'' (center / scale)^2 / (N M) (Nadler 2011, J. Multivariate Anal. 102).
    """
    center, scale = center_scale(rows, cols)
    gamma = (_GRID + _SHIFT) / _SCALE
    density = np.exp((_SHAPE - 1.0) * np.log(gamma) - gamma - math.lgamma(_SHAPE)) / _SCALE
    slope = density * ((_SHAPE - 1.0) / gamma - 1.0) / _SCALE
    law = cdf(torch.from_numpy(_GRID)).numpy() - ((center / scale) ** 2 / (rows * cols))[:, None] * slope
    # The corrected law is not monotone for the smallest matrices: its last crossing is the cautious one.
    last = law.shape[1] - 1 - np.argmax(law[:, ::-1] < 1.0 - rate, axis=1)
    each = np.arange(len(law))
    below, above = law[each, last], law[each, last + 1]
    return np.asarray(_GRID[last] + (1.0 - rate - below) / (above - below) * (_GRID[1] - _GRID[0]))


@lru_cache(maxsize=256)
def largest_noise_ratio(rows: int, cols: int, rate: float) -> Array:
    """Thresholds [ceil(M / 2)] for the (k+1)-th eigenvalue over the sum of it and all smaller ones, k = 0, 1, ...

    With k spikes taken away, what is left of an N x M noise matrix behaves as N - k rows and M - k columns of it;
    pure noise exceeds the threshold with probability ``rate``.
    """
    k = np.arange((cols + 1) // 2)
    n, m = rows - k.astype(np.float64), cols - k.astype(np.float64)
    some = np.unique(np.linspace(0, len(k) - 1, 33).astype(int))
    x = np.interp(k, some, ratio_quantile(n[some], m[some], rate))
    center, scale = center_scale(n, m)
    return np.asarray((center + scale * x) / (n * m))
