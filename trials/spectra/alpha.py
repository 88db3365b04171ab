"""alpha with its interval, where the tail of the eigenvalues is a power law; null where a gate says that it is none.

Any spectrum has a best power-law tail, noise too, so a tail passes only if all of these hold:
it has 10 eigenvalues or more;
p >= 0.05, p the chance that a true power law, fitted in the same way, lies at D or further: 3.7 exp(-7 n D^2), which
matches bootstrap quantiles of tails of 12 to 600 (p from 0.5 to 0.005) within a tenth of p;
the log-likelihood ratio to an exponential tail, over its standard deviation (Vuong 1989), is 1 or more: about one
exponential tail in twenty gets so far;
a Marchenko-Pastur bulk does not account for it: not more than half of the tail lies in a bulk that fits as noise
does, or that misplaces fewer eigenvalues than the power law.

The exponent of a tail that fails is still there as ``alpha_raw``, with D, xmin and the count (powerlaw.py).

The interval is the usual one, with a standard error (alpha - 1) / sqrt n, times 1.15 because xmin is chosen by the same
eigenvalues, and widened to hold the estimates of the upper half, quarter and eighth of the tail. It covers 93 to 98%
where the true tail has 75 eigenvalues or more and the body below it is no power law itself; a short tail on a long body
that passes for one (50 of 500) cannot be told apart, and the interval is then too narrow.
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
_WIDTH = 1.15 * 1.959964  # standard errors; calibrated to a coverage of 95%


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
    is_bulk = (misplaced <= bulk.misplaced_by_noise(left)) | (misplaced < tail.distance * tail.count)
    explained = is_bulk & (body.spikes < tail.count / 2)
    passes = (tail.count >= SMALLEST) & (p >= LEAST_P) & (ratio >= LEAST_RATIO) & ~explained
    return Gate(p, ratio, passes)


def interval(tail: powerlaw.Tail) -> tuple[Tensor, Tensor]:
    """([K], [K]) ends of the 95% interval of alpha, with the choice of xmin in it."""
    whole = tail.alpha()
    margin = _WIDTH * (whole - 1.0) / tail.count.sqrt()
    ends = torch.stack([whole - margin, whole + margin, *(tail.alpha(part) for part in (1 / 2, 1 / 4, 1 / 8))])
    return ends.amin(0), ends.amax(0)


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
