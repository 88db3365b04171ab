"""Spikes told from rows and columns of unequal variance: noise of many kinds has none, planted spikes stay."""

from __future__ import annotations

import pytest
import torch
from planted_spectra import noise, seeded, with_spikes

from trials import spectra
from trials.spectra import balance, bulk
from trials.spectra.eigen import Spectrum

ROWS, COLS, DRAWS = 192, 96, 30


def scales(deviation, *shape):
    return torch.exp(deviation * torch.randn(*shape, generator=seeded(1)))



NOISE = noise(0, DRAWS, ROWS, COLS)
UNEQUAL = {
    "rows": NOISE * scales(0.5, DRAWS, ROWS, 1), "columns": NOISE * scales(0.5, DRAWS, 1, COLS),
    "both": NOISE * scales(0.5, DRAWS, ROWS, 1) * scales(1.0, DRAWS, 1, COLS),
    "two variances": NOISE * (1 + (torch.arange(ROWS) % 2))[:, None] ** 0.5,
    "one row of another size": NOISE * torch.where(torch.arange(ROWS) == 7, 6.0, 1.0)[:, None],
    "90% zeros": NOISE * (torch.rand(DRAWS, ROWS, COLS, generator=seeded(4)) < 0.1),
    "dead rows": NOISE * (torch.arange(ROWS) % 4 > 0)[:, None],
    "ternary": (NOISE / 1.5).round().clamp(-1, 1),
    "a mean": NOISE + 0.3, "positive": NOISE.abs(),
    "heavy entries": torch.rand(DRAWS, ROWS, COLS, generator=seeded(5), dtype=torch.float64) ** -0.4 * NOISE.sign(),
    "huge entries": NOISE * torch.where(torch.rand(DRAWS, ROWS, COLS, generator=seeded(6)) < 1e-3, 20.0, 1.0),
}


def counted(stack):
    spectrum = Spectrum.of(stack)
    return bulk.fit(spectrum).spikes, balance.spikes(spectrum)


@pytest.mark.parametrize("name", UNEQUAL)
def test_noise_of_unequal_variance_has_no_spikes(name):
    """At the 1% of noise of equal variance, 3 or more of 30 draws come in 3 of 1000 runs."""
    before, after = counted(UNEQUAL[name])
    assert (after > 0).sum() <= 2
    if name not in ("ternary", "dead rows", "two variances"):
        assert (before > 0).double().mean() > 0.9


def test_noise_of_equal_variance_keeps_its_rate():
    after = counted(noise(7, 500, 64, 64))[1]
    assert (after > 0).double().mean().item() <= 0.026  # 1% give more once in 1000 runs


@pytest.mark.parametrize("strengths", [[1.5], [3.0, 2.0], [10.0], [50.0], [3.0] * 9, [30.0, 20.0, 10.0, 5.0, 3.0, 2.0]])
@pytest.mark.parametrize(("rows", "cols"), [(192, 96), (64, 64)])
def test_planted_spikes_stay(strengths, rows, cols):
    before, after = counted(with_spikes(8, 20, rows, cols, strengths))
    assert (after <= before).all()
    assert (before - after).double().mean() <= 0.1 * len(strengths)
    assert (before - after).max() <= 1


@pytest.mark.parametrize("strengths", [[2.5], [4.0, 3.0, 2.5]])
def test_spikes_are_found_among_rows_of_unequal_variance(strengths):
    """Rows of mean variance one, so that a spike is about as strong as it is said to be."""
    without = with_spikes(9, 20, ROWS, COLS, [0.0] * len(strengths))
    signal = with_spikes(9, 20, ROWS, COLS, strengths) - without
    before, after = counted(without * scales(0.5, 20, ROWS, 1) + signal)
    assert before.double().mean() > 2 * len(strengths)
    assert after.double().mean().item() == pytest.approx(len(strengths), rel=0.15)


def test_the_count_is_the_same_in_any_stack_orientation_and_scale():
    stack = torch.cat([UNEQUAL["rows"][:3], with_spikes(11, 3, ROWS, COLS, [5.0, 2.0]), UNEQUAL["dead rows"][:2]])
    together = [row["n_spikes_balanced"] for row in spectra.rows(stack)]
    assert together[:3] == [0, 0, 0] and together[3:6] == [2, 2, 2]
    assert [spectra.rows(matrix)[0]["n_spikes_balanced"] for matrix in stack] == together
    assert [row["n_spikes_balanced"] for row in spectra.rows(1e-6 * stack.mT)] == together
    balance.start.cache_clear()
    assert [row["n_spikes_balanced"] for row in spectra.rows(stack)] == together


def test_it_is_null_with_n_spikes():
    for stack in (torch.ones(1, 30, 20), noise(12, 1, 40, 3), torch.full((1, 5, 5), torch.nan), torch.zeros(1, 9, 8)):
        row = spectra.rows(stack)[0]
        assert row["n_spikes"] is None and row["n_spikes_balanced"] is None and row["reason"]
    flat = spectra.rows(torch.linalg.qr(noise(13, 1, 60, 40))[0])[0]
    assert flat["n_spikes"] == flat["n_spikes_balanced"] == 0
