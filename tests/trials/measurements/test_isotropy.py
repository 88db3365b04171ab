from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import layer_of, randn
from torch import Tensor

from trials.measurements import isotropy


def planted(variances: Tensor, n: int) -> Tensor:
    """(n, D) points whose covariance (over n) is exactly that of these principal variances, in a turned basis."""
    d = len(variances)
    x = randn(n, d)
    q, _ = torch.linalg.qr(x - x.mean(0))
    turn, _ = torch.linalg.qr(randn(d, d, seed=1))
    return 3.0 + (q * (variances * n).sqrt()) @ turn.T


def measured(x: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in isotropy.metrics(layer_of(x)).items()}


def isoscore_as_published(variances: np.ndarray) -> float:
    """The steps of Rudman & Eickhoff 2023, algorithm 1, without shrinkage."""
    n = len(variances)
    normalized = np.sqrt(n) * variances / np.linalg.norm(variances)
    delta = np.linalg.norm(normalized - np.ones(n)) / np.sqrt(2 * (n - np.sqrt(n)))
    phi = (n - delta**2 * (n - np.sqrt(n))) ** 2 / n**2
    return float((n * phi - 1) / (n - 1))


@pytest.mark.parametrize("n", [40, 7])
def test_planted_covariance(n: int) -> None:
    lam = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.0], dtype=torch.float64)
    x = planted(lam, n)
    found = measured(x)
    p = (lam / lam.sum()).numpy()
    entropy = -float(sum(q * np.log(q) for q in p if q > 0))
    assert found["activation_participation_ratio"] == pytest.approx(1 / (p**2).sum(), rel=1e-10)
    assert found["activation_isoscore"] == pytest.approx((1 / (p**2).sum() - 1) / 5, rel=1e-10)
    assert found["activation_isoscore"] == pytest.approx(isoscore_as_published(lam.numpy()), rel=1e-9)
    assert found["activation_entropy"] == pytest.approx(entropy, rel=1e-9)
    assert found["activation_effective_rank"] == pytest.approx(np.exp(entropy), rel=1e-9)
    assert found["probe_samples"] == n


def test_fewer_samples_than_dimensions_give_the_same_as_the_full_covariance() -> None:
    x = randn(12, 30)
    lam = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))
    assert measured(x)["activation_isoscore"] == pytest.approx(isoscore_as_published(lam), rel=1e-8)


def test_limits() -> None:
    even = measured(planted(torch.ones(8, dtype=torch.float64), 64))
    assert even["activation_isoscore"] == pytest.approx(1.0, abs=1e-10)
    assert even["activation_effective_rank"] == pytest.approx(8.0, rel=1e-10)
    single = measured(torch.outer(randn(64), randn(8, seed=1)) + 5.0)
    assert single["activation_isoscore"] == pytest.approx(0.0, abs=1e-10)
    assert single["activation_effective_rank"] == pytest.approx(1.0, abs=1e-6)


def test_invariant_under_scale_and_shift() -> None:
    x = randn(50, 6) * torch.arange(1.0, 7.0, dtype=torch.float64)
    assert measured(1e-3 * x + 1.0) == pytest.approx(measured(x), rel=1e-7)


@pytest.mark.parametrize("n, width", [(1024, 16), (1024, 512), (200, 400)])
def test_width_and_samples_do_not_move_the_unbiased_isoscore(n: int, width: int) -> None:
    """Of isotropic activations, and of some whose first half of directions has three times the deviation."""
    even = [measured(randn(n, width, seed=seed)) for seed in range(4)]
    assert even[0]["activation_isoscore"] == pytest.approx(1 / (1 + width / n), rel=0.03)
    assert np.mean([found["activation_isoscore_unbiased"] for found in even]) == pytest.approx(1.0, rel=0.02)
    scale = torch.where(torch.arange(width) < width // 2, 3.0, 1.0)
    truth = (25 * width / 41 - 1) / (width - 1)  # (9 + 1)^2 / 2 (81 + 1) of the directions
    found = np.mean([measured(randn(n, width, seed=seed) * scale)["activation_isoscore_unbiased"] for seed in range(4)])
    assert found == pytest.approx(truth, rel=0.04)


def test_a_single_unit_has_no_isoscore() -> None:
    found = measured(randn(20, 1))
    assert np.isnan(found["activation_isoscore_unbiased"])
    assert np.isnan(found["activation_isoscore"]) and found["activation_participation_ratio"] == pytest.approx(1.0)
