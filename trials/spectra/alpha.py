"""alpha with its interval, where the tail of the eigenvalues is a power law; null where a gate says that it is none.

Any spectrum has a best power-law tail, noise too, so a tail passes only if all of these hold:
it has 10 eigenvalues or more;
p >= 0.05, p the chance that a true power law, fitted in the same way, lies at D or further: 3.7 exp(-7 n D^2), which
matches bootstrap quantiles of tails of 12 to 600 (p from 0.5 to 0.005) within a tenth of p;
the log-likelihood ratio to an exponential tail, over its standard deviation (Vuong 1989), is 1 or more: about one
exponential tail in twenty gets so far;
a Marchenko-Pastur bulk does not account for it: not more than half of the tail lies in a bulk that fits as noise
does, or that misplaces fewer eigenvalues than the power law, where each spike that it leaves out counts as half of one
(it was free to be anywhere).

The exponent of a tail that fails is still there as ``alpha_raw``, with D, xmin and the count (powerlaw.py).

The interval allows for the choice of xmin by the same eigenvalues: it is a tenth wider than at a fixed xmin and reaches
to the intervals of the upper parts of the tail as far as these have an exponent of their own (``interval``). It covers
94 to 98% where the true tail has 75 eigenvalues or more, 88 to 98% with 19 to 38, and 75 to 95% with 50 on a body of
450. Most of what is missed there passes for one power law with the body below even when a test is told the true density
(benchmarks/calibration_powerlaw.py).

The gate does not see every power law in a small matrix: with 0.3 of the eigenvalues on a tail of exponent 3 it passes
for 17, 30 and 51% of M = 32, 64, 128, with 0.6 for 35, 54 and 76%; mostly an exponential fits as well. Log-normal tails
are not told from power laws: noise with columns of log-normal scale, sigma 0.7, passes for 18 to 42%.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number
from trials.spectra import bulk, powerlaw
from trials.spectra.eigen import Group, Spectrum

SMALLEST = 10
LEAST_P = 0.05
LEAST_RATIO = 1.0
_WIDTH = 1.1 * 1.959964  # z of the interval: wider than normal because xmin is chosen by the same eigenvalues
_PART, _SMALLEST_PART = 1 / 8, 5  # of the tail, and eigenvalues: smaller upper parts do not widen the interval


@dataclass(frozen=True)
class Gate:
    """What the gate looks at and what it says, [K] each."""

    p: Tensor
    ratio: Tensor
    passes: Tensor


def likelihood_ratio(lam: Tensor, tail: powerlaw.Tail) -> Tensor:
    """[K] log-likelihood of the power law minus that of an exponential shifted to xmin, over its standard deviation.

    With y = ln(lambda / xmin) and m the mean of lambda - xmin, each of the n eigenvalues of the tail contributes
    ln((alpha - 1) / xmin) - alpha y + ln m + (lambda - xmin) / m; the ratio is their sum over sqrt n deviations.
    """
    alpha, xmin, n = tail.alpha()[:, None], tail.xmin[:, None], tail.count[:, None]
    member = torch.arange(lam.shape[-1], device=lam.device) < n
    y = torch.where(member, lam / xmin, 1.0).log()
    excess = torch.where(member, lam - xmin, 0.0)
    mean = excess.sum(-1, keepdim=True) / n
    each = torch.where(member, ((alpha - 1.0) / xmin).log() - alpha * y + mean.log() + excess / mean, 0.0)
    average = each.sum(-1) / tail.count
    variance = each.square().sum(-1) / tail.count - average.square()
    return average * tail.count.sqrt() / variance.clamp(min=1e-30).sqrt()


def gate(spectrum: Spectrum) -> Gate:
    """Judge the tails of a stack."""
    tail, body = spectrum.shared(powerlaw.fit), spectrum.shared(bulk.fit)
    p = (3.7 * (-7.0 * tail.count * tail.distance.square()).exp()).clamp(max=1.0)
    ratio = likelihood_ratio(spectrum.positive, tail)
    misplaced = spectrum.shared(bulk.misplaced)
    left = (spectrum.shape[1] - body.spikes).to(misplaced.dtype)
    is_bulk = (misplaced <= bulk.misplaced_by_noise(left)) | (misplaced + body.spikes / 2 < tail.distance * tail.count)
    explained = is_bulk & (body.spikes < tail.count / 2)
    passes = (tail.count >= SMALLEST) & (p >= LEAST_P) & (ratio >= LEAST_RATIO) & ~explained
    return Gate(p, ratio, passes)


def interval(tail: powerlaw.Tail) -> tuple[Tensor, Tensor]:
    """([K], [K]) ends of the 95% interval of alpha, with the choice of xmin in it.

    Under a power law i ln(lambda_i / lambda_{i+1}), i < n, are independent exponentials of rate alpha - 1 (Renyi 1953),
    so m of them with sum S give alpha - 1 as m / S (1 - 1 / 9m +- z / 3 sqrt m)^3, the quantiles of chi^2_2m / 2S
    (Wilson & Hilferty 1931). The interval is the union of that of the whole tail, N = n - 1, at z = 1.1 x 1.96, and
    those of its upper parts. An exponent of its own for the m largest and one for the r = N - m others raise the
    log-likelihood by g = m ln(m / S_m) + r ln(r / S_r) - N ln(N / S_N), which is 1/2 by chance; that part then counts
    at z^2 = 2 g - 1, up to the z of the whole, if it has 5 eigenvalues or more and an eighth of the tail.
    """
    count = torch.arange(1, tail.exponents.shape[-1] + 1, dtype=tail.exponents.dtype, device=tail.exponents.device)
    n, spacings = tail.count[:, None], count - 1.0
    total = count / (tail.exponents - 1.0)  # [K, M] sum of the spacings above each eigenvalue
    whole = n / (tail.alpha()[:, None] - 1.0)
    rest, rest_total = n - count, whole - total
    gain = (spacings * (spacings / total).log() + rest * (rest / rest_total).log()
            - (n - 1.0) * ((n - 1.0) / whole).log())
    part = (count >= (n * _PART).clamp(min=_SMALLEST_PART)) & (count < n) & (gain > 0.5) & gain.isfinite()
    z = torch.where(part, (2.0 * gain - 1.0).clamp(min=0.0, max=_WIDTH**2).sqrt(), _WIDTH)
    centre, margin = 1.0 - 1.0 / (9.0 * spacings), z / (3.0 * spacings.sqrt())
    used, rate = part | (count == n), spacings / total
    low = torch.where(used, rate * (centre - margin).clamp(min=0.0) ** 3, torch.inf)
    high = torch.where(used, rate * (centre + margin) ** 3, -torch.inf)
    return 1.0 + low.amin(-1), 1.0 + high.amax(-1)


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """Each column of this group as a tensor [K]; NaN for the exponents where the gate does not pass."""
    tail, verdict = spectrum.shared(powerlaw.fit), spectrum.shared(gate)
    alpha = torch.where(verdict.passes, tail.alpha(), torch.nan)
    low, high = interval(tail)
    top = spectrum.eigenvalues[:, 0].log10()
    norm = torch.logsumexp(alpha[:, None] * spectrum.positive.log(), -1) / math.log(10.0)
    return {
        "alpha": alpha,
        "alpha_stderr": (alpha - 1.0) / tail.count.sqrt(),
        "alpha_low": torch.where(verdict.passes, low, torch.nan),
        "alpha_high": torch.where(verdict.passes, high, torch.nan),
        "alpha_p": verdict.p,
        "alpha_ratio": verdict.ratio,
        "alpha_hat": alpha * top,
        "log_alpha_norm": norm,
    }


GROUP = Group(
    columns=(
        number("alpha", "exponent of the power-law tail of the density of eigenvalues; null where the gate says none"),
        number("alpha_stderr", "standard error (alpha - 1) / sqrt(alpha_tail) of alpha at this xmin"),
        number("alpha_low", "lower end of the 95% interval of alpha, with the choice of xmin in it"),
        number("alpha_high", "upper end of that interval"),
        number("alpha_p", "chance that a true power law fits no better; the gate asks for 0.05"),
        number("alpha_ratio", "log-likelihood ratio to an exponential tail over its deviation; the gate asks for 1"),
        number("alpha_hat", "alpha log10 lambda_max, of X = W^T W / N"),
        number("log_alpha_norm", "log10 of the sum of lambda^alpha, of X = W^T W / N"),
    ),
    function=metrics,
    why={"alpha": "alpha: the tail is no power law"},
)
