"""Statistics of the entries against scipy and sorted ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_spectra import noise, seeded
from scipy import stats

from trials import spectra
from trials.spectra import entries


def row_of(matrix: torch.Tensor) -> dict:
    return spectra.rows(matrix, ("entries",))[0]


SAMPLES = {
    "normal": noise(0, 200, 100),
    "shifted": noise(1, 200, 100) + 3.0,
    "log-normal": noise(2, 200, 100).exp() * noise(3, 200, 100).sign(),
    "wide log-normal": (3 * noise(4, 200, 100)).exp(),
    "uniform": torch.rand(200, 100, generator=seeded(5)) - 0.5,
    "sparse": noise(6, 200, 100) * (noise(7, 200, 100) > 0.5),
    "heavy": torch.rand(200, 100, generator=seeded(8), dtype=torch.float64) ** -0.8,
    "few": noise(9, 12, 10),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_against_sorted_entries(name, scale):
    matrix = SAMPLES[name] * scale
    row = row_of(matrix)
    w = matrix.double().numpy().ravel()
    size = np.sort(np.abs(w))
    nonzero = size[size > 0]
    many = len(size)

    assert row["entry_kurtosis"] == pytest.approx(stats.kurtosis(w), rel=1e-5, abs=1e-5)
    assert row["entry_max_to_mean"] == pytest.approx(size[-1] / size.mean(), rel=1e-5)
    near = (size < 0.01 * (w**2).mean() ** 0.5).mean()
    assert row["entry_near_zero"] == pytest.approx(near, abs=2e-4)
    gini = ((2 * np.arange(1, many + 1) - many - 1) * size).sum() / (many * size.sum())
    assert row["entry_gini"] == pytest.approx(gini, abs=2e-4)
    log = np.log(nonzero)
    expected = stats.kstest((log - log.mean()) / log.std(), "norm").statistic
    assert row["entry_lognormality"] == pytest.approx(expected, abs=max(5e-3, 1.5 / len(nonzero)))
    k = max(10, -(-len(nonzero) // 100))
    hill = 1 / np.log(nonzero[-k:] / nonzero[-k - 1]).mean()
    assert row["entry_tail_index"] == pytest.approx(hill, rel=0.1) or min(row["entry_tail_index"], hill) > 50


def test_known_values():
    row = row_of(noise(10, 1000, 500))
    assert row["entry_kurtosis"] == pytest.approx(0.0, abs=0.03)
    assert row["entry_gini"] == pytest.approx(2**0.5 - 1, abs=2e-3)
    assert row["entry_near_zero"] == pytest.approx(0.00798, abs=5e-4)
    assert row_of(noise(11, 1000, 500).exp())["entry_lognormality"] < 5e-3
    for mu in (0.8, 1.5, 3.0):
        heavy = torch.rand(1000, 500, generator=seeded(12), dtype=torch.float64) ** (-1 / mu)
        assert row_of(heavy)["entry_tail_index"] == pytest.approx(mu, rel=0.06)


def test_blocks_do_not_change_the_numbers(monkeypatch):
    stack = noise(13, 5, 60, 50)
    whole = spectra.rows(stack, ("entries",))
    for block in (700, 7000):  # less than a matrix; two matrices and some
        monkeypatch.setattr(entries, "_BLOCK", block)
        for row, same in zip(whole, spectra.rows(stack, ("entries",)), strict=True):
            assert row.pop("reason") == same.pop("reason")
            assert {k: v for k, v in row.items() if v} == pytest.approx({k: v for k, v in same.items() if v}, rel=1e-9)
        whole = spectra.rows(stack, ("entries",))


def test_nothing_is_made_up():
    equal = row_of(torch.full((30, 20), 2.0))
    assert (equal["entry_kurtosis"], equal["entry_lognormality"], equal["entry_tail_index"]) == (None, None, None)
    assert equal["entry_gini"] == pytest.approx(0.0, abs=1e-12) and equal["entry_max_to_mean"] == pytest.approx(1.0)
    assert "equal" in equal["reason"]
    signs = row_of(noise(14, 30, 20).sign())
    assert signs["entry_kurtosis"] == pytest.approx(-2.0, abs=0.1) and signs["entry_lognormality"] is None
    assert row_of(noise(15, 9, 9))["entry_tail_index"] is None
