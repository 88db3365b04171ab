"""Single units of a layer: dead, dormant, silent or massive ones, and the tails of their preactivations.

A unit is one coordinate of a vector, one channel of an image (four dimensions: (N, C, H, W)), the last dimension of
anything else; statistics of a unit run over samples and positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.activations import Layer, of_layers
from trials.measurements.features import ROUNDING

TAU = 0.025


def per_unit(activation_N: Tensor) -> Tensor:
    """(N, *shape) -> (samples and positions, U)."""
    last = activation_N.movedim(1, -1) if activation_N.ndim == 4 else activation_N
    return last.reshape(-1, last.shape[-1])


def metrics(layer: Layer) -> dict[str, Tensor]:
    """Each column as a tensor without dimensions; NaN where half of all values are zero (massive ratio) or every
    preactivation is constant (kurtosis)."""
    size_MU = per_unit(layer.activation_N).abs()
    score_U = size_MU.mean(0)
    return {
        "dead_units": (size_MU == 0.0).all(0).double().mean(),
        "dormant_units": (score_U <= TAU * score_U.mean()).double().mean(),
        "activation_sparsity": (size_MU == 0.0).double().mean(),
        "activation_massive_ratio": massive_ratio(layer.activation_N),
        "preactivation_massive_ratio": massive_ratio(layer.preactivation_N),
        "preactivation_kurtosis": kurtosis(per_unit(layer.preactivation_N)),
    }


def massive_ratio(activation: Tensor) -> Tensor:
    """max |a| / median |a| over all values (the lower of two medians); infinite or NaN if the median is zero."""
    size = activation.abs()
    return size.max() / size.median()


def kurtosis(x_MU: Tensor) -> Tensor:
    """Excess kurtosis m4 / m2^2 - 3 of each unit (0 if normal), averaged over the units that are not constant."""
    centred_MU = x_MU - x_MU.mean(0)
    m2_U, m4_U = centred_MU.square().mean(0), centred_MU.pow(4).mean(0)
    varies_U = m2_U > ROUNDING**2 * x_MU.square().mean(0)
    return torch.where(varies_U, m4_U / m2_U.square() - 3.0, 0.0).sum() / varies_U.sum()


MEASUREMENT = of_layers((
    number("dead_units", "fraction of units whose activation is 0 on every probe sample"),
    number("dormant_units", f"fraction of units whose mean |a| is at most {TAU} of the layer's mean "
                            "(Sokar et al. 2023, arXiv 2302.12902)"),
    number("activation_sparsity", "fraction of activations that are exactly 0"),
    number("activation_massive_ratio", "max |a| / median |a| over all activations (Sun et al. 2024, arXiv 2402.17762); "
                                       "null if half of them are 0"),
    number("preactivation_massive_ratio", "the same of the nonlinearity's inputs"),
    number("preactivation_kurtosis", "excess kurtosis of each unit's input over the probe samples, mean over the units "
                                     "that vary; 0 if normal"),
), metrics)
