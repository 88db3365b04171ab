"""Power-law fit of the tail of the eigenvalues, with an exact scan over where the tail begins.

For every eigenvalue as xmin, over the n eigenvalues >= xmin: alpha = 1 + n / sum ln(lambda / xmin), and D is the
Kolmogorov-Smirnov distance of the tail from the law 1 - (lambda / xmin)^(1 - alpha); the xmin of least D is kept
(Clauset, Shalizi & Newman 2009). alpha_hat = alpha log10 lambda_max (Martin & Mahoney 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number, whole
from trials.spectra.eigen import Group, Spectrum

_BLOCK = 64  # candidates whose tails are compared at a time: a block only looks at its own longest tail


@dataclass(frozen=True)
class Tail:
    """The best tail of each matrix, [K] float64 each; NaN where fewer than 2 distinct positive eigenvalues are."""

    alpha: Tensor
    distance: Tensor
    xmin: Tensor
    count: Tensor


def scan(lam: Tensor) -> Tail:
    """Fit every row of ``lam`` [K, M] (descending; zeros are left out) at once: O(K M^2) operations."""
    cols = lam.shape[-1]
    if cols < 2:
        nothing = torch.full_like(lam[:, 0], torch.nan)
        return Tail(nothing, nothing, nothing, nothing)
    positive = lam > 0
    log = torch.where(positive, lam, 1.0).log()
    n = torch.arange(1, cols + 1, dtype=lam.dtype, device=lam.device)
    slope = n / (log.cumsum(-1) - n * log)  # alpha - 1 of the tail that ends with each eigenvalue
    last_of_ties = torch.cat([lam[:, :-1] > lam[:, 1:], torch.ones_like(positive[:, :1])], -1)
    candidate = positive & last_of_ties & (lam < lam[:, :1])
    distance = torch.full_like(lam, torch.inf)
    for start in range(0, cols, _BLOCK):
        stop = min(start + _BLOCK, cols)
        excess = (log[:, None, :stop] - log[:, start:stop, None]).clamp_(min=0.0)  # [K, tails, members]
        survival = excess.mul_(-slope[:, start:stop, None]).exp_()
        middle = (n[:stop] - 0.5) / n[start:stop, None]  # of the step of the empirical function at each member
        gap = survival.sub_(middle).abs_().mul_((n[:stop] <= n[start:stop, None]).to(lam.dtype))
        distance[:, start:stop] = gap.amax(-1) + 0.5 / n[start:stop]
    distance = torch.where(candidate, distance, torch.inf)
    best = distance.argmin(-1, keepdim=True)
    some = candidate.any(-1)

    def pick(values: Tensor) -> Tensor:
        return torch.where(some, values.expand_as(lam).gather(-1, best)[:, 0], torch.nan)

    return Tail(1.0 + pick(slope), pick(distance), pick(lam), pick(n))


def fit(spectrum: Spectrum) -> Tail:
    """The tails of a stack, of the eigenvalues that are not rounding."""
    lam = spectrum.eigenvalues
    return scan(torch.where(lam > spectrum.resolution[:, None], lam, 0.0))


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """Each column of this group as a tensor [K]."""
    tail = spectrum.shared(fit)
    return {
        "alpha": tail.alpha,
        "alpha_D": tail.distance,
        "alpha_xmin": tail.xmin,
        "alpha_tail": tail.count,
        "alpha_stderr": (tail.alpha - 1.0) / tail.count.sqrt(),
    }


GROUP = Group(
    columns=(
        number("alpha", "exponent of the power-law tail of the density of eigenvalues"),
        number("alpha_D", "Kolmogorov-Smirnov distance of that tail from its power law"),
        number("alpha_xmin", "smallest eigenvalue of the tail"),
        whole("alpha_tail", "eigenvalues in the tail"),
        number("alpha_stderr", "standard error of alpha"),
    ),
    function=metrics,
    why={"alpha": "no power-law fit: fewer than 2 distinct positive eigenvalues"},
)
