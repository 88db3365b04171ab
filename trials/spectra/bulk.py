"""The Marchenko-Pastur bulk of a matrix and the spikes above it.

Spikes are counted upward (Kritchman & Nadler 2009): with k spikes taken away the rest of noise is that of an
(N - k) x (M - k) matrix, so sigma_k^2 = N sum_{i > k} lambda_i / ((N - k)(M - k)), and eigenvalue k + 1 is a spike if
it exceeds the Tracy-Widom quantile of such noise; the first one that does not ends the count. The noise level never
has the spikes in it, and no search over sigma is needed. Spikes that are many and close to the edge hide each other: of
13 at 1.5 times the visibility threshold in a 128 x 128 matrix 8 are found. A spike that is missed raises sigma, one too
many lowers it less, so sigma is that of a count at a looser rate: within 1% with up to a tenth of such spikes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.columns import number, whole
from trials.spectra.eigen import Group, Spectrum
from trials.spectra.marchenko_pastur import cdf, edges
from trials.spectra.tracy_widom import center_scale, largest_noise_ratio

RATE = 0.01  # pure noise shows a spike this often
_LOOSE = 0.05  # the same, of the spikes that are kept out of sigma
SMALLEST = 4  # fewer columns make no bulk


@dataclass(frozen=True)
class Bulk:
    """The fit of each matrix of a stack, [K] each: ``spikes`` int64, ``variance`` sigma^2, ``fitted`` bool.

    ``variance`` is NaN where ``fitted`` is False: fewer than 4 columns or a singular matrix. ``spikes`` = ceil(M / 2)
    says that there is no bulk: the fit then describes the lower half of the eigenvalues, badly.
    """

    spikes: Tensor
    variance: Tensor
    fitted: Tensor


def fit(spectrum: Spectrum) -> Bulk:
    """Fit every matrix of the stack at once; a scan over the number of spikes in cumulative sums."""
    lam, (rows, cols) = spectrum.eigenvalues, spectrum.shape
    fitted = (spectrum.rank == cols) & (cols >= SMALLEST)
    rest = lam.flip(-1).cumsum(-1).flip(-1)

    def count(rate: float) -> Tensor:
        threshold = torch.as_tensor(largest_noise_ratio(rows, cols, rate), device=lam.device)
        most = len(threshold)
        noise = lam[:, :most] <= threshold * rest[:, :most]
        return torch.where(noise.any(-1), noise.int().argmax(-1), most).clamp(max=cols - 1)

    taken = count(_LOOSE)
    variance = rest.gather(-1, taken[:, None])[:, 0] * rows / ((rows - taken) * (cols - taken))
    return Bulk(count(RATE), torch.where(fitted, variance, torch.nan), fitted)


def misplaced(spectrum: Spectrum) -> Tensor:
    """[K] eigenvalues out of place: (M - k) times the Kolmogorov-Smirnov distance of the bulk from its law.

    The bulk left by k spikes follows the law of ratio (M - k) / (N - k) and variance sigma^2 (N - k) / N.
    """
    lam, (rows, cols) = spectrum.eigenvalues, spectrum.shape
    bulk = spectrum.shared(fit)
    n, m = (rows - bulk.spikes)[:, None], (cols - bulk.spikes)[:, None]
    model = cdf(lam * rows / (bulk.variance[:, None] * n), (m / n).to(lam.dtype))
    above = torch.arange(cols, device=lam.device) - bulk.spikes[:, None]
    gap = (m * (1.0 - model) - (above + 0.5)).abs() + 0.5  # from the middle of each step of the empirical function
    return torch.where(above >= 0, gap, 0.0).amax(-1)


def misplaced_by_noise(size: Tensor) -> Tensor:
    """99% quantile of ``misplaced`` for a bulk of ``size`` noise eigenvalues (fitted to 8 ... 1000, any Q).

    Eigenvalues repel each other, so it grows like ln M, not like sqrt M.
    """
    return 1.1 + 0.42 * size.log()


def metrics(spectrum: Spectrum) -> dict[str, Tensor]:
    """Each column of this group as a tensor [K]; NaN where there is no fit (see ``Bulk``)."""
    lam, (rows, cols) = spectrum.eigenvalues, spectrum.shape
    bulk = spectrum.shared(fit)
    low, high = edges(cols / rows)
    top = lam[:, 0]
    center, scale = (float(value) for value in center_scale(rows, cols))
    left = torch.where(torch.arange(cols, device=lam.device) >= bulk.spikes[:, None], lam, 0.0).sum(-1)
    nan = torch.full_like(top, torch.nan)
    return {
        "lambda_plus": bulk.variance * high,
        "lambda_minus": bulk.variance * low,
        "sigma_mp": bulk.variance.sqrt(),
        "sigma_bulk": torch.where(bulk.fitted, (left / (cols - bulk.spikes)).sqrt(), nan),
        "mp_softrank": (bulk.variance * high / top).clamp(max=1.0),
        "mp_distance": spectrum.shared(misplaced) / (cols - bulk.spikes),
        "n_spikes": torch.where(bulk.fitted, bulk.spikes.to(lam.dtype), nan),
        "tw_gap": (top * rows / bulk.variance - center) / scale,
    }


GROUP = Group(
    columns=(
        number("lambda_plus", "upper Marchenko-Pastur edge sigma_mp^2 (1 + Q^(-1/2))^2"),
        number("lambda_minus", "lower Marchenko-Pastur edge sigma_mp^2 (1 - Q^(-1/2))^2"),
        number("sigma_mp", "standard deviation of the noise entries, from the bulk without its spikes"),
        number("sigma_bulk", "square root of the mean eigenvalue below the spikes"),
        number("mp_softrank", "lambda_plus / lambda_max, at most 1"),
        number("mp_distance", "Kolmogorov-Smirnov distance of the m bulk eigenvalues; noise: to (1.1 + 0.42 ln m) / m"),
        whole("n_spikes", "eigenvalues above the bulk; 1% of noise of equal variance has one; ceil(M / 2): no bulk"),
        number("tw_gap", "lambda_max minus the finite-size edge, in Tracy-Widom scales; noise gives -1.2 +- 1.3"),
    ),
    function=metrics,
    why={"sigma_mp": "no Marchenko-Pastur fit: fewer than 4 columns or singular"},
)
