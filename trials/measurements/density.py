"""Spectral density of the Hessian by stochastic Lanczos quadrature.

Its row of ``spectra`` has the layer ``hessian``. The share of eigenvalues in bins is ``numpy.histogram(eigenvalues,
bins, weights=weights)``; bins finer than the nodes show the nodes, not the spectrum.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from trials.columns import Column
from trials.measurements.base import Measurement, Snapshot
from trials.measurements.hessian import hessian
from trials.measurements.lanczos import lanczos
from trials.measurements.objective import objective


def density(snapshot: Snapshot, starts: int = 8, steps: int = 64) -> tuple[Tensor, Tensor]:
    """Nodes, descending, and their weights, which sum to 1: ``sum(weights * f(nodes))`` estimates tr f(H) / P, any f.

    float64, each (K,) with K = starts * steps, or fewer where a Krylov space is exhausted. Each start vector v gives
    the Gauss quadrature of v^T f(H) v / v^T v, exact for polynomials f up to degree 2 steps - 1; their mean over random
    v is tr f(H) / P (Ubaru, Chen & Saad 2017; for networks Ghorbani, Krishnan & Xiao 2019, arXiv 1901.10159). Costs
    starts * steps products. To plot, convolve with a Gaussian.
    """
    operator, theta_P = snapshot.shared(hessian), snapshot.shared(objective).theta_P
    nodes, weights = [], []
    for i in range(starts):
        start = snapshot.stream("density").at(i).normal((len(theta_P),), theta_P.dtype)
        space = lanczos(operator, start, steps)
        nodes.append(space.values_M)
        weights.append(space.weights_M / starts)
    values_K, order = torch.cat(nodes).sort(descending=True)
    return values_K, torch.cat(weights)[order]


def measure(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """The row of layer ``hessian``; none where the Hessian is not finite."""
    nodes_K, weights_K = density(snapshot)
    if not nodes_K.isfinite().all():
        return {}
    return {"hessian": {"eigenvalues": nodes_K.tolist(), "weights": weights_K.tolist()}}


MEASUREMENT = Measurement(
    group="density",
    table="spectra",
    columns=(
        Column("weights", pa.list_(pa.float64()), "1", "in layer hessian, share of the eigenvalues of the Hessian of "
               "the training loss (probe set, no knobs) at each node; null where each eigenvalue counts once"),
    ),
    function=measure,
)
