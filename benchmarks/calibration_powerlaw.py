"""Calibration of alpha: false passes of its gate, true passes, the p-value, and the coverage of its interval."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.calibration_spikes import noise_eigenvalues, of_eigenvalues, planted
from trials.spectra import alpha, powerlaw
from trials.spectra.eigen import Spectrum


def tail_on_body(rng: np.random.Generator, draws: int, size: int, share: float, exponent: float, body: str) -> Tensor:
    """[draws, size] values, descending: a share above 1 is Pareto of this exponent, the rest is a body below 1.

    ``body``: "log-normal" (sigma 0.7, median e^-1, cut off at 1) or "noise" (Marchenko-Pastur, Q = 2, edge at 1).
    """
    tail = round(share * size)
    pareto = rng.random((draws, tail)) ** (-1.0 / (exponent - 1.0))
    rest = (draws, size - tail)
    if body == "log-normal":
        below = np.exp(rng.normal(-1.0, 0.7, (*rest, 4)))  # each takes the first of four draws that is below 1
        first = np.argmax(below < 1.0, axis=-1)[..., None]
        values = np.take_along_axis(below, first, -1)[..., 0]
        values[values >= 1.0] = 0.5
    else:
        noise = noise_eigenvalues(rng, draws, 2 * rest[1], rest[1]).numpy()
        values = noise / noise[:, :1] * 0.99
    return torch.from_numpy(-np.sort(-np.concatenate([values, pareto], axis=1), axis=1))


def main() -> None:
    """Print the four tables."""
    torch.set_num_threads(1)
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    draws = 500

    def passes(spectrum: Spectrum) -> str:
        return f"{spectrum.shared(alpha.gate).passes.double().mean().item():>8.1%}"

    print("gate on noise, asked at most 5%")
    for cols in (10, 16, 64, 256):
        rates = [passes(of_eigenvalues(noise_eigenvalues(rng, draws, cols * q, cols), cols * q)) for q in (1, 3, 10)]
        print(f"  M {cols:>4}, Q 1, 3, 10: {''.join(rates)}")
    print("gate on noise with spikes at 1.2 to 4 times the threshold")
    for cols, ratio in ((64, 1), (64, 4), (128, 2)):
        rates = [passes(planted(generator, draws, cols * ratio, cols, torch.linspace(1.2, 4.0, k)))
                 for k in (1, 2, 5, 10)]
        print(f"  M {cols:>4}, Q {ratio}, 1, 2, 5, 10 spikes: {''.join(rates)}")
    print("gate on exponential and half-normal tails")
    for size in (50, 200, 500):
        light = (rng.exponential(size=(draws, size)), np.abs(rng.normal(size=(draws, size))))
        rates = [passes(of_eigenvalues(torch.from_numpy(-np.sort(-values, axis=1)), 2 * size)) for values in light]
        print(f"  n {size:>4}: {''.join(rates)}")

    print("\np-value on true power laws: share below 0.05, 0.1, 0.5")
    for size in (25, 100, 400):
        p = alpha.gate(of_eigenvalues(tail_on_body(rng, 2000, size, 1.0, 2.0, "log-normal"), 2 * size)).p
        print(f"  n {size:>4}: " + "".join(f"{(p < level).double().mean().item():>8.1%}" for level in (0.05, 0.1, 0.5)))

    print("\npower-law tails on a body: where the gate passes, the 95% interval, asked 92-98%, and the usual one")
    print(f"{'body':>12}{'M':>6}{'share':>7}{'alpha':>7}{'passes':>9}{'interval':>10}{'usual':>8}{'all':>8}")
    for body in ("log-normal", "noise"):
        for size, share in ((128, 0.6), (500, 0.3), (500, 0.6), (64, 0.3), (500, 0.1)):
            for exponent in (2.0, 3.0, 4.0):
                spectrum = of_eigenvalues(tail_on_body(rng, draws, size, share, exponent, body), 2 * size)
                tail, verdict = spectrum.shared(powerlaw.fit), spectrum.shared(alpha.gate)
                low, high = alpha.interval(tail)
                held = (low <= exponent) & (exponent <= high)
                usual = (tail.alpha() - exponent).abs() <= 1.96 * (tail.alpha() - 1) / tail.count.sqrt()
                chosen = verdict.passes
                print(f"{body:>12}{size:>6}{share:>7}{exponent:>7}{passes(spectrum):>9}"
                      f"{held[chosen].double().mean().item():>10.1%}{usual[chosen].double().mean().item():>8.1%}"
                      f"{held.double().mean().item():>8.1%}")


if __name__ == "__main__":
    main()
