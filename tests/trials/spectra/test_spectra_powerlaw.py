"""The power-law scan against a brute-force one, and tails of known exponent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_spectra import noise, pareto, seeded

from trials import spectra
from trials.spectra.powerlaw import hill, scan


def brute_force(values: np.ndarray) -> tuple[float, float, float, int]:
    """(alpha, xmin, D, n) as the definition says: every distinct value as xmin, D over both sides of each step."""
    best = (np.inf, 0.0, 0.0, 0)
    for xmin in np.unique(values[values > 0])[:-1]:
        tail = np.sort(values[values >= xmin])
        n = len(tail)
        alpha = 1 + n / np.log(tail / xmin).sum()
        model = 1 - (tail / xmin) ** (1 - alpha)
        distance = max(np.abs(np.arange(1, n + 1) / n - model).max(), np.abs(np.arange(n) / n - model).max())
        best = min(best, (distance, xmin, alpha, n))
    return best[2], best[1], best[0], best[3]


@pytest.mark.parametrize("size", [2, 3, 7, 64, 65, 150])
@pytest.mark.parametrize("kind", ["pareto", "exponential", "ties", "wide", "zeros"])
def test_scan_equals_brute_force(kind, size):
    values = pareto(size, 4, size, 2.5)
    if kind == "exponential":
        values = values.log() + 1e-3
    if kind == "ties":
        values = (3 * values).round()
        values[:, 0] += 1  # at least two distinct values
    if kind == "wide":
        values = values**20
    if kind == "zeros":
        values[:, max(2, size // 2):] = 0.0
    tail = scan(values)
    for k, row in enumerate(values.numpy()):
        found = [x[k].item() for x in (tail.alpha(), tail.xmin, tail.distance, tail.count)]
        assert found == pytest.approx(brute_force(row), rel=1e-9)


@pytest.mark.parametrize("values", [[1.0], [0.0], [2.0, 2.0, 2.0], [1.0, 0.0, 0.0], [0.0, 0.0]])
def test_no_tail_is_nan(values):
    tail = scan(torch.tensor([values], dtype=torch.float64))
    for number in (tail.alpha(), tail.alpha(0.125), tail.xmin, tail.distance, tail.count):
        assert number.isnan().all()


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.0])
def test_iid_pareto_tails(exponent):
    draws, size = 50, 500
    tail = scan(pareto(1, draws, size, exponent))
    # the deviation is that at a fixed xmin, somewhat widened by the scan
    deviation = (exponent - 1) / size**0.5
    assert tail.alpha().mean().item() == pytest.approx(exponent, abs=4 * deviation / draws**0.5)
    assert deviation < tail.alpha().std().item() < 2.5 * deviation
    fixed = scan(pareto(1, draws, size, exponent)).exponents[:, -1]
    assert fixed.std().item() == pytest.approx(deviation, rel=0.3)


def test_alpha_of_a_part_of_the_tail():
    values = pareto(2, 1, 100, 3.0)
    tail = scan(values)
    half = int(tail.count.item() / 2)
    expected = 1 + half / (values[0, :half] / values[0, half - 1]).log().sum()
    assert tail.alpha(0.5).item() == pytest.approx(expected.item())


def test_hill_by_definition():
    lam = pareto(3, 2, 41, 2.0)
    expected = 1 + 20 / (lam[:, :20] / lam[:, 20:21]).log().sum(-1)
    np.testing.assert_allclose(hill(lam).numpy(), expected.numpy())
    lam[0, 15:] = 0.0
    assert hill(lam).isnan().tolist() == [True, False]


@pytest.mark.parametrize(("rows", "cols", "expected"), [(500, 500, 2.1), (1000, 500, 2.7), (2140, 200, 5.0)])
def test_hill_of_noise_depends_on_the_shape(rows, cols, expected):
    found = spectra.rows(noise(4, 3, rows, cols), ("powerlaw",))
    assert np.mean([row["alpha_hill"] for row in found]) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_eigenvalues_of_one_size_have_no_exponent(dtype):
    """An orthogonal matrix, and one with three directions beside: rounding is all that tells the others apart."""
    frame = torch.linalg.qr(noise(5, 2, 96, 64).double())[0]
    smaller = frame * torch.where(torch.arange(64) < 61, 1.0, 0.3)
    flat, _, stepped, _ = spectra.rows(torch.cat([frame, smaller]).to(dtype), ("powerlaw",))
    assert flat["alpha_hill"] is flat["alpha_raw"] is flat["alpha_D"] is None and "1% apart" in flat["reason"]
    assert stepped["alpha_hill"] is None and stepped["alpha_raw"] < 100 and "all alike" in stepped["reason"]


def heavy_tailed(mu: float, draws: int) -> list[dict]:
    """Rows of symmetric 2000 x 1000 matrices with P(|w| > x) = x^-mu."""
    generator, rows = seeded(round(10 * mu)), []
    for _ in range(draws):
        size = torch.rand(2000, 1000, generator=generator, dtype=torch.float64) ** (-1 / mu)
        sign = 2.0 * torch.randint(0, 2, (2000, 1000), generator=generator) - 1.0
        rows += spectra.rows(sign * size, ("alpha", "entries", "powerlaw"))
    return rows


@pytest.mark.parametrize("mu", [0.5, 1.0])
def test_heavy_tailed_entries_below_mu_1_give_alpha_1_plus_half_mu(mu):
    rows = heavy_tailed(mu, 4)
    assert np.mean([row["alpha_raw"] for row in rows]) == pytest.approx(1 + mu / 2, abs=0.04)
    assert np.mean([row["entry_tail_index"] for row in rows]) == pytest.approx(mu, rel=0.05)
    assert all(row["alpha"] == row["alpha_raw"] for row in rows)


@pytest.mark.parametrize(("mu", "alpha_raw"), [(2.0, 2.7), (3.0, 10.0)])
def test_heavy_tailed_entries_that_are_not_recovered_at_this_size_are_flagged(mu, alpha_raw):
    """Either the gate says no, or alpha is many standard errors from what the entries' own tail index implies."""
    rows = heavy_tailed(mu, 3)
    assert np.mean([row["alpha_raw"] for row in rows]) == pytest.approx(alpha_raw, rel=0.4)
    for row in rows:
        implied = 1 + row["entry_tail_index"] / 2
        assert row["alpha"] is None or row["alpha"] - implied > 5 * row["alpha_stderr"]


def test_heavy_tailed_entries_of_mu_1_5_are_off_by_less_than_their_interval_is_wide():
    """A clean power law of a slightly wrong exponent (1.86 for 1.75): no gate on the eigenvalues can see it."""
    for row in heavy_tailed(1.5, 2):
        assert 1.75 < row["alpha"] < 2.0
        assert row["alpha"] - 1.75 < row["alpha_high"] - row["alpha_low"]
