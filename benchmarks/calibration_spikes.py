"""Calibration of the Marchenko-Pastur fit: false spikes on noise, planted spikes found, accuracy of sigma.

Noise spectra are drawn from the bidiagonal model of Dumitriu & Edelman (2002), exactly the law of Gaussian matrices.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor

from trials.spectra import bulk
from trials.spectra.eigen import Spectrum


def noise_eigenvalues(rng: np.random.Generator, draws: int, rows: int, cols: int) -> Tensor:
    """[draws, M] eigenvalues of W^T W / N, descending, W an N x M matrix of independent standard normal entries."""
    result = np.empty((draws, cols))
    for row in result:
        diagonal = np.sqrt(rng.chisquare(rows - np.arange(cols)))
        below = np.sqrt(rng.chisquare(cols - 1 - np.arange(cols - 1)))
        square = diagonal**2
        square[1:] += below**2
        row[:] = eigvalsh_tridiagonal(square, diagonal[:-1] * below)[::-1] / rows
    return torch.from_numpy(result)


def of_eigenvalues(lam: Tensor, rows: int) -> Spectrum:
    """A spectrum without its matrices."""
    draws, cols = lam.shape
    return Spectrum(lam.new_zeros((1, 1, 1)).expand(draws, rows, cols), lam, torch.ones(draws, dtype=torch.bool))


def planted(generator: torch.Generator, draws: int, rows: int, cols: int, strengths: Tensor) -> Spectrum:
    """Unit noise plus orthonormal directions times S sqrt(N); ``strengths`` [spikes] are S / Q^(-1/4)."""
    spikes = len(strengths)

    def frames(size: int) -> Tensor:
        frame: Tensor = torch.linalg.qr(torch.randn(draws, size, spikes, generator=generator))[0]
        return frame

    signal = strengths * (cols / rows) ** 0.25 * rows**0.5
    noise = torch.randn(draws, rows, cols, generator=generator)
    return Spectrum.of(noise + (frames(rows) * signal) @ frames(cols).mT)


def main() -> None:
    """Print the three tables."""
    torch.set_num_threads(1)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)

    print(f"noise: share of matrices with a spike, stated {bulk.RATE:.1%} +- 1 point")
    print(f"{'M':>6}{'Q':>6}{'draws':>8}{'measured':>10}{'+-':>7}")
    for cols in (16, 64, 256, 1024):
        for ratio in (1, 3, 10):
            draws = 4000 if cols <= 64 else 1000 if cols <= 256 else 500
            noise = of_eigenvalues(noise_eigenvalues(rng, draws, cols * ratio, cols), cols * ratio)
            rate = (bulk.fit(noise).spikes > 0).double().mean().item()
            print(f"{cols:>6}{ratio:>6}{draws:>8}{rate:>10.2%}{(rate * (1 - rate) / draws) ** 0.5:>7.2%}")

    print("\none spike planted at 1.5 times the visibility threshold: share found, asked 95%;\n"
          "and by an oracle that is told sigma and takes the exact 1% quantile of lambda_max of noise")
    print(f"{'M':>6}{'Q':>6}{'draws':>8}{'found':>10}{'oracle':>10}")
    for cols, ratio in ((32, 1), (32, 4), (64, 1), (64, 4), (128, 1), (128, 4), (256, 1), (256, 4), (512, 1)):
        draws, batch, found, oracle = 500, 50, 0, 0
        noise = noise_eigenvalues(rng, 4000 if cols <= 128 else 1000, cols * ratio, cols)
        largest = noise[:, 0].quantile(1 - bulk.RATE)
        for _ in range(draws // batch):
            spectrum = planted(generator, batch, cols * ratio, cols, torch.tensor([1.5]))
            found += int((bulk.fit(spectrum).spikes >= 1).sum())
            oracle += int((spectrum.eigenvalues[:, 0] > largest).sum())
        print(f"{cols:>6}{ratio:>6}{draws:>8}{found / draws:>10.1%}{oracle / draws:>10.1%}")

    print("\nsigma (true 1) with spikes planted: asked within 1%")
    print(f"{'M':>6}{'Q':>6}{'spikes':>8}{'strengths':>12}{'draws':>8}{'mean':>9}{'sd':>9}{'spikes':>9}")
    for cols, ratio in ((128, 1), (128, 4), (256, 2)):
        for share in (0.02, 0.1):
            for low, high in ((1.5, 1.5), (1.5, 6.0), (3.0, 3.0)):
                draws, batch = 500, 50
                strengths = torch.linspace(low, high, round(share * cols))
                fits = [bulk.fit(planted(generator, batch, cols * ratio, cols, strengths))
                        for _ in range(draws // batch)]
                sigma = torch.cat([fit.variance for fit in fits]).sqrt()
                spikes = torch.cat([fit.spikes for fit in fits]).double().mean().item()
                print(f"{cols:>6}{ratio:>6}{len(strengths):>8}{f'{low} to {high}':>12}{draws:>8}"
                      f"{sigma.mean().item():>9.4f}{sigma.std().item():>9.4f}{spikes:>9.1f}")


if __name__ == "__main__":
    main()
