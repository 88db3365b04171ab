"""Norms and ranks: how many directions a matrix uses, from its eigenvalues alone.

With p_i = lambda_i / sum lambda: entropy S = -sum p ln p / ln(rank); effective rank e^(-sum p ln p) (Roy & Vetterli
2007); stable rank sum lambda / lambda_max; srank_delta, the least k whose largest singular values hold 1 - delta of
their sum (Kumar et al. 2021, arXiv 2010.14498). The logarithm of the determinant is a sum of logarithms, never the
logarithm of a product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trials.columns import number, whole
from trials.spectra.eigen import Group, Spectrum

DELTA = 0.01


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """Each column of this group as a tensor [K]; NaN for a zero matrix, a rank of 1 or (condition) a singular one."""
    lam, (rows, cols) = spectrum.eigenvalues, spectrum.shape
    top, total, rank = lam[:, 0], lam.sum(-1), spectrum.rank
    full = rank == cols
    p = lam / total[:, None]
    entropy = -torch.special.xlogy(p, p).sum(-1)
    singular = spectrum.positive.sqrt()
    held = singular.cumsum(-1) / singular.sum(-1, keepdim=True)
    delta_rank = (held < 1.0 - DELTA).sum(-1) + 1.0
    nan = torch.full_like(top, torch.nan)
    return {
        "lambda_max": top,
        "frobenius_norm": (total * rows).sqrt(),
        "spectral_norm": (top * rows).sqrt(),
        "log_norm": torch.where(total > 0, (total * rows).log10(), nan),
        "log_spectral_norm": torch.where(top > 0, (top * rows).log10(), nan),
        "log_determinant": torch.where(full, lam.log().sum(-1), nan),
        "condition_number": torch.where(full, (top / lam[:, -1]).sqrt(), nan),
        "hard_rank": rank.to(lam.dtype),
        "stable_rank": total / top,
        "entropy": torch.where(rank > 1, entropy / rank.to(lam.dtype).log(), nan),
        "effective_rank": entropy.exp(),
        "delta_rank": torch.where(total > 0, delta_rank, nan),
    }


GROUP = Group(
    columns=(
        number("lambda_max", "largest eigenvalue of X = W^T W / N"),
        number("frobenius_norm", "Frobenius norm of W (not of X: no 1/N)"),
        number("spectral_norm", "largest singular value of W (not of X: no 1/N)"),
        number("log_norm", "log10 of the squared Frobenius norm of W"),
        number("log_spectral_norm", "log10 of the squared spectral norm of W"),
        number("log_determinant", "sum of the natural logarithms of the eigenvalues of X; null if singular"),
        number("condition_number", "largest over smallest singular value; null if singular to working precision"),
        whole("hard_rank", "eigenvalues above their rounding, 2 sqrt(N) eps lambda_max, eps = 2.2e-16"),
        number("stable_rank", "sum of the eigenvalues over the largest"),
        number("entropy", "-sum p ln p / ln(hard rank), p the eigenvalues over their sum; null for rank 1"),
        number("effective_rank", "e^(-sum p ln p)"),
        whole("delta_rank", "least number of singular values that hold 99% of the sum of all"),
    ),
    function=metrics,
    why={"stable_rank": "all entries are zero", "condition_number": "singular to working precision",
         "entropy": "rank 1 has no entropy"},
)
