"""Power-law fit of the tail of the eigenvalues, with an exact scan over where the tail begins.

For every eigenvalue as xmin, over the n eigenvalues >= xmin: alpha = 1 + n / sum ln(lambda / xmin), and D is the
Kolmogorov-Smirnov distance of the tail from the law 1 - (lambda / xmin)^(1 - alpha); the xmin of least D is kept
(Clauset, Shalizi & Newman 2009, arXiv 0706.1062). D is two-sided; WeightWatcher and powerlaw take the one-sided
max(F - i / n) instead, and so other tails in some matrices. The Hill estimate takes the upper half instead of a scan:
1 + k / sum_{i <= k} ln(lambda_i / lambda_{k+1}), k = M / 2; on noise it depends on Q, so compare equal shapes only.
Eigenvalues within 1% of the largest are one level, that of an orthogonal matrix, say, and no tail: what tells them
apart is the rounding of the weights, and an exponent would measure that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number, whole
from trials.spectra.eigen import Group, Spectrum

_LEVEL = 1.01  # the largest over the least eigenvalue of a tail, at least; bfloat16 rounds weights to 0.4%
_BLOCK = 64  # candidates whose tails are compared at a time: a block only looks at its own longest tail


@dataclass(frozen=True)
class Tail:
    """The best tail of each of K spectra: ``count`` n, ``xmin`` and ``distance`` D, [K] float64 each.

    All NaN where no two positive eigenvalues are more than 1% apart. ``exponents``: [K, M], alpha of the n largest
    eigenvalues at index n - 1, whatever their fit.
    """

    count: Tensor
    xmin: Tensor
    distance: Tensor
    exponents: Tensor

    def alpha(self, fraction: float = 1.0) -> Tensor:
        """[K] alpha of the upper ``fraction`` of the tail (at least 2 eigenvalues)."""
        index = (self.count.nan_to_num(2.0) * fraction).long().clamp(2, max(2, self.exponents.shape[-1])) - 1
        return _pick(self.exponents, index, self.count > 0)


def _pick(values: Tensor, index: Tensor, where: Tensor) -> Tensor:
    """values[k, index[k]], NaN where not ``where``."""
    index = index.clamp(max=values.shape[-1] - 1)
    return torch.where(where, values.gather(-1, index[:, None])[:, 0], torch.nan)


def scan(lam: Tensor) -> Tail:
    """Fit every row of ``lam`` [K, M] (float64, descending; zeros are left out) at once, in O(K M^2) operations."""
    cols = lam.shape[-1]
    log = torch.where(lam > 0, lam, 1.0).log()
    n = torch.arange(1, cols + 1, dtype=lam.dtype, device=lam.device)
    rate = n / (log.cumsum(-1) - n * log)  # alpha - 1 of the tail that ends with each eigenvalue
    ends = torch.ones_like(lam, dtype=torch.bool)  # of equal eigenvalues only the last ends a tail
    ends[:, :-1] = lam[:, :-1] > lam[:, 1:]
    candidate = (lam > 0) & ends & (lam * _LEVEL < lam[:, :1])
    distance = torch.full_like(lam, torch.inf)
    for start in range(0, cols, _BLOCK):
        stop = min(start + _BLOCK, cols)
        excess = (log[:, None, :stop] - log[:, start:stop, None]).clamp_(min=0.0)  # [K, tails, members]
        survival = excess.mul_(-rate[:, start:stop, None]).exp_()
        middle = (n[:stop] - 0.5) / n[start:stop, None]  # of the step of the empirical function at each member
        member = (n[:stop] <= n[start:stop, None]).to(lam.dtype)
        distance[:, start:stop] = survival.sub_(middle).abs_().mul_(member).amax(-1) + 0.5 / n[start:stop]
    distance = torch.where(candidate, distance, torch.inf)
    best, some = distance.argmin(-1), candidate.any(-1)
    return Tail(_pick(n.expand_as(lam), best, some), _pick(lam, best, some), _pick(distance, best, some), 1.0 + rate)


def fit(spectrum: Spectrum) -> Tail:
    """The tails of a stack, of the eigenvalues that are not rounding."""
    return scan(spectrum.positive)


def hill(lam: Tensor) -> Tensor:
    """[K] the Hill estimate with k = M / 2 of ``lam`` [K, M] (descending); NaN where one of these is zero, or all are
    one level."""
    k = max(1, lam.shape[-1] // 2)
    upper = lam[:, : k + 1].log()
    spread = upper - upper[:, -1:]
    estimate = 1.0 + k / spread.sum(-1)
    return torch.where(estimate.isfinite() & (spread[:, 0] > math.log(_LEVEL)), estimate, torch.nan)


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """Each column of this group as a tensor [K]; NaN where there is no tail to fit."""
    tail = spectrum.shared(fit)
    return {
        "alpha_raw": tail.alpha(),
        "alpha_D": tail.distance,
        "alpha_xmin": tail.xmin,
        "alpha_tail": tail.count,
        "alpha_hill": hill(spectrum.positive),
    }


GROUP = Group(
    columns=(
        number("alpha_raw", "exponent of the best power-law tail of the density of eigenvalues, even if it is none"),
        number("alpha_D", "Kolmogorov-Smirnov distance of that tail from its power law"),
        number("alpha_xmin", "smallest eigenvalue of the tail"),
        whole("alpha_tail", "eigenvalues in the tail"),
        number("alpha_hill", "Hill estimate of the exponent from the upper half; on noise it depends on Q"),
    ),
    function=metrics,
    why={"alpha_raw": "no power-law fit: no two positive eigenvalues more than 1% apart",
         "alpha_hill": "no Hill estimate: less than half of the eigenvalues are positive, or they are all alike"},
)
