"""Intrinsic dimension of a layer's activations, from the distances between near neighbours.

- TwoNN (Facco et al. 2017, arXiv 1803.06992): with mu_i the ratio of the distances to the second and the first
  neighbour, sorted, the slope through the origin of -log(1 - i/N) against log mu_i, without the largest tenth.
- Local dimension, maximum likelihood (Levina & Bickel 2004): at each point the inverse of the mean over j < k of
  log(T_k / T_j), T_j the distance to the j-th neighbour, k = NEIGHBOURS; the points' inverses are averaged before
  inverting (MacKay & Ghahramani 2005), since the mean of the dimensions is biased.

Of points that coincide one is kept. Both are lower than the truth where the dimension is high (above about 10) for the
number of samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.activations import Layer, of_layers
from trials.measurements.nulls import undefined

NEIGHBOURS = 20
DISCARDED = 0.1  # fraction of the largest ratios left out, as in the source


def metrics(layer: Layer) -> dict[str, Tensor]:
    """Each column as a tensor without dimensions; NaN where no more than NEIGHBOURS points are distinct."""
    distances_NK = neighbours(layer.features.squared_distances_NN)
    if distances_NK is None:
        nothing = undefined(layer.activation_N)
        return {"twonn_dimension": nothing, "local_dimension": nothing}
    return {"twonn_dimension": two_nn(distances_NK), "local_dimension": local_dimension(distances_NK)}


def neighbours(squared_distances_NN: Tensor) -> Tensor | None:
    """(N', NEIGHBOURS) distances of the N' distinct points to their nearest, ascending; None for too few points."""
    twin_NN = (squared_distances_NN == 0.0).tril(-1)
    kept = (~twin_NN.any(1)).nonzero().squeeze(1)
    if len(kept) <= NEIGHBOURS:
        return None
    distinct_NN = squared_distances_NN[kept[:, None], kept]
    nearest = distinct_NN.topk(NEIGHBOURS + 1, largest=False).values  # the first is the point itself, at 0
    return nearest[:, 1:].sqrt()


def two_nn(distances_NK: Tensor) -> Tensor:
    """TwoNN estimate from ascending distances (N, at least 2)."""
    log_mu_N = (distances_NK[:, 1] / distances_NK[:, 0]).log().sort().values
    total = len(log_mu_N)
    kept = int(total * (1.0 - DISCARDED))
    x = log_mu_N[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, device=x.device, dtype=x.dtype) / total)
    return (x * y).sum() / x.square().sum()


def local_dimension(distances_NK: Tensor) -> Tensor:
    """Maximum likelihood estimate from ascending distances (N, K)."""
    return 1.0 / (distances_NK[:, -1:] / distances_NK[:, :-1]).log().mean()


MEASUREMENT = of_layers((
    number("twonn_dimension", "TwoNN intrinsic dimension of the activations"),
    number("local_dimension", f"maximum likelihood local intrinsic dimension, {NEIGHBOURS} neighbours"),
), metrics)
