"""Norms and ranks against hand-computed values, and iid noise of a known shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted_spectra import noise

from trials import spectra


def diagonal(*singular: float) -> torch.Tensor:
    matrix = torch.zeros(8, len(singular), dtype=torch.float64)
    matrix[: len(singular)] = torch.diag(torch.tensor(singular, dtype=torch.float64))
    return matrix


def test_by_hand():
    row = spectra.rows(diagonal(4.0, 2.0, 2.0), ("ranks",))[0]
    p = np.array([16, 4, 4]) / 24
    entropy = -(p * np.log(p)).sum()
    expected = {"lambda_max": 2.0, "frobenius_norm": 24**0.5, "spectral_norm": 4.0, "log_norm": math.log10(24),
                "log_spectral_norm": math.log10(16), "log_determinant": math.log(2.0 * 0.5 * 0.5),
                "condition_number": 2.0, "hard_rank": 3, "stable_rank": 1.5, "entropy": entropy / math.log(3),
                "effective_rank": math.exp(entropy), "delta_rank": 3}
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert row["reason"] is None


@pytest.mark.parametrize(("singular", "rank"), [
    ((98.5, 0.75, 0.75), 2), ((99.5, 0.3, 0.2), 1), ((1.0, 1.0, 1.0), 3), ((97.0, 2.5, 0.5), 2),
])
def test_delta_rank_is_the_least_number_that_holds_99_percent(singular, rank):
    assert spectra.rows(diagonal(*singular), ("ranks",))[0]["delta_rank"] == rank


def test_the_determinant_of_many_small_eigenvalues_does_not_underflow():
    lam = torch.full((400,), 1e-6, dtype=torch.float64)
    row = spectra.rows(torch.diag((400 * lam).sqrt()), ("ranks",))[0]
    assert row["log_determinant"] == pytest.approx(400 * math.log(1e-6), rel=1e-9)


def test_ranks_of_lost_and_kept_directions():
    kept, lost = diagonal(1.0, 0.5, 1e-6), diagonal(1.0, 0.5, 1e-9)
    assert spectra.rows(kept)[0]["hard_rank"] == 3
    assert spectra.rows(kept)[0]["condition_number"] == pytest.approx(1e6, rel=1e-3)
    assert spectra.rows(lost)[0]["hard_rank"] == 2
    assert spectra.rows(lost)[0]["condition_number"] is None


def test_a_product_of_thin_float32_factors_has_their_rank():
    for rows, cols, rank in ((512, 512, 7), (2000, 100, 1), (64, 128, 20)):
        matrix = noise(1, rows, rank) @ noise(2, rank, cols)
        assert spectra.rows(matrix, ("ranks",))[0]["hard_rank"] == rank


def test_iid_noise_4096_by_384():
    rows = spectra.rows(noise(3, 12, 4096, 384), ("ranks", "bulk"))
    top = np.array([row["lambda_max"] for row in rows])
    assert top.mean() == pytest.approx(1.6958, abs=3 * 0.0105 / 12**0.5)
    assert top.std(ddof=1) == pytest.approx(0.0105, rel=0.6)
    for row in rows:
        assert row["lambda_plus"] == pytest.approx(1.7061, rel=4e-3)
        assert row["lambda_minus"] == pytest.approx(0.4814, rel=4e-3)
        assert row["stable_rank"] == pytest.approx(225.1, rel=0.025)
        assert row["entropy"] == pytest.approx(0.992, abs=5e-4)
