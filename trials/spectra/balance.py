"""Spikes that are left where rows and columns have variances of their own.

Noise of unequal variance has eigenvalues above the Marchenko-Pastur edge of its mean variance; so has noise with a
mean, with many zeros or with a few huge entries. With W_ij = r_i c_j X_ij, X of equal variance, dividing by r_i c_j
brings the law back (biwhitening: Landa, Zhang & Kluger 2022, arXiv 2103.13840). The scales come from Sinkhorn's
iteration on the squares of the entries, less their mean: afterwards all rows have one mean square, and all columns.

- The scales of noise scatter, and scales that follow the scatter hide weak spikes. Logarithms of the scales are shrunk
  to their mean by 1 - e / v, v their variance, e = 1 / 2M that of rows (1 / 2N of columns) in normal noise of equal
  variance: so such noise stays as it is, and a spike that n_spikes sees is still seen.
- A strong spike has rows and columns of unequal size itself, and dividing by them would make the noise beside it
  unequal. Scales are fitted again without the strongest directions, as many as are spikes before and after the first
  balance, M / 8 at most; the counts before, after the first balance and after the second are all bounds, and the least
  is taken.

Rows of zeros are left out. Correlated entries are not told from spikes: their eigenvalues stay above the edge, but
mp_distance is too large for noise.

Matrices without spikes cost nothing. Others take the time of 3 to 4 eigensolves at M = 512 (two of them are such), of 6
or 7 at M = 64; half of it where no spike is left at once. Simulations: benchmarks/calibration_phases.py.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from trials.columns import whole
from trials.spectra import bulk
from trials.spectra.eigen import Group, Spectrum
from trials.streams import generator

_ROUNDS = 6  # of Sinkhorn's iteration; each is two products with a vector
_POWERS = 2  # of the squared Gram matrix that find the strong directions


def spikes(spectrum: Spectrum) -> Tensor:
    """[K] int64 eigenvalues that are spikes before and after rows and columns are balanced; see the module."""
    body = spectrum.shared(bulk.fit)
    result = body.spikes.clone()
    for some, weights in _alike(spectrum, (body.spikes > 0) & body.fitted):
        centered = weights - weights.mean((-1, -2), keepdim=True)
        found = torch.minimum(result[some], _balanced(centered, centered))
        strong = found > 0
        if bool(strong.any()):
            centered = centered[strong]
            again = _balanced(centered, centered - _strongest(centered, found[strong]))
            found[strong] = torch.minimum(found[strong], again)
        result[some] = found
    return result


def _alike(spectrum: Spectrum, chosen: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(places [k], weights [k, n, M] float64) of the chosen matrices, without rows of zeros, for each number n left."""
    live = spectrum.weights.any(-1)
    count = torch.where(chosen, live.sum(-1), 0)
    places = [(count == size).nonzero()[:, 0] for size in sorted(set(count.tolist())) if size]
    return [(some, spectrum.weights[some][live[some]].reshape(len(some), -1, spectrum.shape[1]).double())
            for some in places]


def _balanced(weights: Tensor, noise: Tensor) -> Tensor:
    """[K] spikes of ``weights`` over the scales of rows and columns of ``noise``, both [K, N, M]."""
    square = noise.square()
    rows, cols = square.shape[-2:]
    inverse = square.new_ones((*square.shape[:-1], 1))  # variance of each row, to the power -1
    for _ in range(_ROUNDS):
        inverse_col = rows / (square.mT @ inverse).clamp(min=1e-300)
        inverse = cols / (square @ inverse_col).clamp(min=1e-300)
    return bulk.fit(Spectrum.of(weights * _shrunk(inverse, cols) * _shrunk(inverse_col, rows).mT)).spikes


def _shrunk(inverse: Tensor, size: int) -> Tensor:
    """Factors [K, n, 1] of rows, from the inverse variances of ``size`` entries each."""
    log = 0.5 * inverse.log()
    deviation = log - log.mean(-2, keepdim=True)
    variance = deviation.square().mean(-2, keepdim=True)
    return ((1.0 - 0.5 / size / variance.clamp(min=1e-300)).clamp(min=0.0) * deviation).exp()


def _strongest(weights: Tensor, count: Tensor) -> Tensor:
    """[K, N, M] the ``count`` [K] directions of largest singular value, by subspace iteration from a fixed start."""
    cols = weights.shape[-1]
    gram = weights.mT @ weights
    basis = start(cols, weights.device).expand(len(weights), -1, -1)
    for _ in range(_POWERS):
        basis = torch.linalg.qr(gram @ (gram @ basis))[0]
    turn = torch.linalg.eigh(basis.mT @ gram @ basis)[1].flip(-1)
    kept = torch.arange(basis.shape[-1], device=count.device) < count[:, None]
    directions = basis @ turn * kept[:, None, :]
    strongest: Tensor = (weights @ directions) @ directions.mT
    return strongest


@lru_cache(maxsize=8)
def start(cols: int, device: torch.device) -> Tensor:
    """[M, M / 8 rounded up] fixed normal numbers, the same on every device."""
    drawn = torch.randn(cols, (cols + 7) // 8, generator=generator(0, "strong directions", cols), dtype=torch.float64)
    return drawn.to(device)


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """The column of this group as a tensor [K]; NaN where n_spikes is."""
    found = spikes(spectrum).to(torch.float64)
    return {"n_spikes_balanced": torch.where(spectrum.shared(bulk.fit).fitted, found, torch.nan)}


GROUP = Group(
    columns=(whole("n_spikes_balanced", "of n_spikes, those left with variances of rows and columns balanced"),),
    function=metrics,
    why={},  # null with n_spikes, which says why
)
