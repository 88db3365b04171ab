"""Statistics of the entries of a matrix, whatever their arrangement.

All that depends on the order of sizes comes from one histogram of ln(|w| / rms), so that millions of entries need no
sort. Its bins are 1.4% of a size wide: a Gini coefficient is off by 2e-4 at most, a distribution function by the mass
of one bin; a tail index above 50 says no more than that there is no tail. Entries below 1e-9 of the root mean square
count as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number
from trials.spectra.eigen import Group, Spectrum

NEAR_ZERO = 0.01
TAIL = 0.01  # share of the nonzero entries, and at least 10 of them, whose sizes give the tail index
_STEP = -math.log(NEAR_ZERO) / 320  # of the histogram: NEAR_ZERO is an edge
_LOW, _NEAR, _BINS = -1420 * _STEP, 1100, 2048  # lowest edge, bins below NEAR_ZERO, all bins (to 8000 times the rms)
_BLOCK = 2**18  # entries in work at a time on a CPU: a megabyte stays in its cache


@dataclass(frozen=True)
class Sums:
    """Over the entries of each matrix in units of their root mean square, [K] float64 each.

    ``second`` and ``fourth`` central moment, ``average`` and ``largest`` size; ``counts``: [K, bins], the histogram.
    """

    second: Tensor
    fourth: Tensor
    average: Tensor
    largest: Tensor
    counts: Tensor


def sums(weights: Tensor, rms: Tensor) -> Sums:
    """Of ``weights`` [K, E], float32 or float64, with root mean squares ``rms`` [K], by blocks of entries."""
    matrices, entries = weights.shape
    block = _BLOCK if weights.device.type == "cpu" else weights.numel()
    scale = torch.where(rms > 0, rms, 1.0)
    mean = weights.sum(-1, dtype=torch.float64) / entries / scale
    second, fourth, average, largest = torch.zeros((4, matrices), dtype=torch.float64, device=weights.device)
    counts = second.new_zeros((matrices, _BINS))
    tall = max(1, block // entries)
    for top in range(0, matrices, tall):
        some = slice(top, top + tall)
        offset = torch.arange(len(rms[some]), dtype=torch.int32, device=rms.device)[:, None] * _BINS
        for piece in torch.split(weights[some], block, dim=-1):
            z = piece / scale[some, None]
            square = (z - mean[some, None]).square_()
            second[some] += square.sum(-1)
            fourth[some] += square.square_().sum(-1)
            size = z.abs_()
            average[some] += size.sum(-1)
            largest[some] = torch.maximum(largest[some], size.amax(-1))
            place = size.to(torch.float32).log_().sub_(_LOW).div_(_STEP).clamp_(0, _BINS - 1).to(torch.int32)
            found = torch.bincount((place + offset).flatten(), minlength=len(offset) * _BINS)
            counts[some] += found.reshape(-1, _BINS)
    return Sums(second / entries, fourth / entries, average / entries, largest, counts)


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """Each column of this group as a tensor [K]; NaN where entries are all zero, all equal or too few."""
    weights = spectrum.weights.flatten(1)
    entries = weights.shape[-1]
    rms = (spectrum.eigenvalues.sum(-1) / spectrum.shape[1]).sqrt()
    total = sums(weights, rms)
    counts = total.counts[:, 1:]  # without the zeros
    edges = _LOW + _STEP * torch.arange(1, _BINS + 1, dtype=rms.dtype, device=rms.device)
    centers = (edges[1:] + edges[:-1]) / 2
    many = counts.sum(-1, keepdim=True)
    below = counts.cumsum(-1)

    mean = (counts * centers).sum(-1, keepdim=True) / many
    deviation = ((counts * (centers - mean).square()).sum(-1, keepdim=True) / many).sqrt()
    normal = torch.special.ndtr((edges[1:] - mean) / deviation)
    distance = (below / many - normal).abs().amax(-1)

    mass = counts * centers.exp()
    held = mass.cumsum(-1)
    lorenz = (2.0 * held - mass) / held[:, -1:]  # twice the share held by those below the middle of each bin

    small = total.counts[:, :_NEAR].sum(-1)
    first = (many - below >= (TAIL * many).clamp(min=10.0)).sum(-1, keepdim=True)  # bin of the least of the largest
    first = first.clamp(max=_BINS - 2)
    tail = counts * (torch.arange(_BINS - 1, device=rms.device) >= first)
    excess = (tail * (centers - edges[first])).sum(-1) / tail.sum(-1)

    varied = total.second > 1e-12
    sized = deviation[:, 0] > _STEP
    columns = {
        "entry_kurtosis": (total.fourth / total.second.square() - 3.0, varied),
        "entry_max_to_mean": (total.largest / total.average, rms > 0),
        "entry_near_zero": (small / entries, rms > 0),
        "entry_lognormality": (distance, sized),
        "entry_gini": (1.0 - (counts * lorenz).sum(-1) / entries, rms > 0),
        "entry_tail_index": (1.0 / excess, sized & (many[:, 0] >= 100)),
    }
    return {name: torch.where(known, value, torch.nan) for name, (value, known) in columns.items()}


GROUP = Group(
    columns=(
        number("entry_kurtosis", "excess kurtosis of the entries; 0 if normal"),
        number("entry_max_to_mean", "largest |w| over the mean |w|"),
        number("entry_near_zero", "share of entries below 1% of their root mean square"),
        number("entry_lognormality", "Kolmogorov-Smirnov distance of ln|w| from a normal law; 0 if log-normal"),
        number("entry_gini", "Gini coefficient of |w|; 0 if all are equal, sqrt(2) - 1 if normal"),
        number("entry_tail_index", "Hill estimate of mu, P(|w| > x) ~ x^-mu, from the largest 1% of the entries"),
    ),
    function=metrics,
    why={"entry_kurtosis": "all entries are equal", "entry_lognormality": "all entries are of equal size",
         "entry_tail_index": "no tail index of fewer than 100 nonzero entries"},
)
