"""The randomized control: the spectrum of the same entries, shuffled over the matrix.

Shuffling keeps the entries and destroys their arrangement. A lambda_max above the shuffled one, or sigma_bulk below
sigma_shuffled, is structure; eigenvalues of the shuffled matrix beyond its own bulk ("traps", Martin & Hinrichs 2025)
come from single huge entries. One permutation serves all matrices of a shape, so that a matrix has the same control
alone and in any stack.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from trials.columns import number, whole
from trials.spectra import bulk
from trials.spectra.eigen import Group, Spectrum
from trials.streams import generator


@lru_cache(maxsize=8)
def permutation(rows: int, cols: int, device: torch.device) -> Tensor:
    """A fixed random permutation of N M entries, int32, the same on every device."""
    shuffled = torch.randperm(rows * cols, generator=generator(0, "shuffled control", rows, cols))
    return shuffled.to(torch.int32).to(device)


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """Each column of this group as a tensor [K]; sigma_shuffled is NaN where no Marchenko-Pastur law can be fitted."""
    weights = spectrum.weights
    order = permutation(*spectrum.shape, weights.device)
    shuffled = Spectrum.of(weights.flatten(1).index_select(1, order).reshape(weights.shape))
    noise = shuffled.shared(bulk.fit)
    traps = noise.spikes.to(torch.float64)
    return {
        "lambda_max_shuffled": shuffled.eigenvalues[:, 0],
        "sigma_shuffled": noise.variance.sqrt(),
        "randomized_traps": torch.where(noise.fitted, traps, torch.nan),
    }


GROUP = Group(
    columns=(
        number("lambda_max_shuffled", "largest eigenvalue of the matrix with its entries shuffled"),
        number("sigma_shuffled", "standard deviation of the noise entries of the shuffled matrix, as sigma_mp"),
        whole("randomized_traps", "eigenvalues of the shuffled matrix above its bulk, as n_spikes"),
    ),
    function=metrics,
    why={"sigma_shuffled": "no Marchenko-Pastur fit of the shuffled matrix"},
)
