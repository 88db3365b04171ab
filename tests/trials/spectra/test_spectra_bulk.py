"""The Marchenko-Pastur fit and its spikes: the laws against independent numbers, and planted spikes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_spectra import noise, seeded, with_spikes
from scipy import integrate

from trials import spectra
from trials.spectra import bulk, marchenko_pastur, tracy_widom
from trials.spectra.eigen import Spectrum


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.999, 1.0])
def test_distribution_function_is_the_integral_of_the_density(ratio):
    low, high = marchenko_pastur.edges(ratio)
    points = np.linspace(low, high, 7)

    def density(root: float) -> float:  # in x = low + root^2, which has no singularity at either edge
        x = low + root**2
        return 2 * root**2 * max(high - x, 0.0) ** 0.5 / (2 * np.pi * ratio * x) if x > 0 else high**0.5 / np.pi

    expected = [integrate.quad(density, 0.0, (x - low) ** 0.5, limit=200)[0] for x in points]
    found = marchenko_pastur.cdf(torch.from_numpy(points), torch.tensor(ratio, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)
    outside = marchenko_pastur.cdf(torch.tensor([low - 1, high + 1]).double(), torch.tensor(ratio).double())
    np.testing.assert_allclose(outside.numpy(), [0.0, 1.0], atol=1e-7)


def test_tracy_widom_law_has_its_published_quantiles():
    published = {-3.8954: 0.01, -3.1804: 0.05, -2.7824: 0.10, -1.2686: 0.50, 0.4501: 0.90, 0.9793: 0.95, 2.0234: 0.99}
    found = tracy_widom.cdf(torch.tensor(list(published), dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), list(published.values()), atol=1.5e-3)


def test_scale_is_the_asymptotic_one():
    rows, cols = 40000.0, 10000.0
    center, scale = tracy_widom.center_scale(rows, cols)
    edge = marchenko_pastur.edges(cols / rows)[1]
    assert center / rows == pytest.approx(edge, rel=1e-4)
    assert scale / rows == pytest.approx((rows / cols) ** -0.5 * edge ** (2 / 3) * cols ** (-2 / 3), rel=1e-3)


def test_noise_1000_by_500():
    row = spectra.rows(noise(0, 1, 1000, 500), ("bulk",))[0]
    assert row["lambda_plus"] == pytest.approx(2.9142, rel=5e-3)
    assert row["lambda_minus"] == pytest.approx(0.0858, rel=5e-3)
    draws = 40
    top = torch.cat([spectra.eigenvalues(noise(seed, 8, 1000, 500))[:, 0] for seed in range(draws // 8)]).numpy()
    assert top.mean() == pytest.approx(2.885, abs=3 * 0.029 / draws**0.5)
    assert top.std(ddof=1) == pytest.approx(0.029, rel=0.35)


@pytest.mark.parametrize(("rows", "cols", "draws"), [(16, 16, 4000), (160, 16, 2000), (64, 64, 1000), (96, 32, 1500)])
def test_noise_shows_a_spike_at_the_stated_rate(rows, cols, draws):
    spikes = bulk.fit(Spectrum.of(noise(1, draws, rows, cols))).spikes
    assert (spikes > 0).double().mean().item() == pytest.approx(bulk.RATE, abs=0.01)


@pytest.mark.parametrize(("rows", "cols"), [(256, 256), (512, 128)])
def test_planted_spikes_are_found_and_sit_where_they_should(rows, cols):
    strengths = [3.0, 2.0, 1.5]
    spectrum = Spectrum.of(with_spikes(2, 40, rows, cols, strengths))
    assert (bulk.fit(spectrum).spikes >= 3).double().mean() >= 0.95
    ratio = rows / cols
    squared = np.square(strengths) * ratio**-0.5
    expected = (1 / ratio + squared) * (1 + 1 / squared)
    np.testing.assert_allclose(spectrum.eigenvalues[:, :3].mean(0).numpy(), expected, rtol=0.03)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(("rows", "cols"), [(256, 256), (512, 128)])
def test_spikes_do_not_move_sigma(share, rows, cols):
    strengths = torch.linspace(1.5, 6.0, max(1, round(share * cols))).tolist() if share else [0.0]
    fit = bulk.fit(Spectrum.of(5.0 * with_spikes(3, 20, rows, cols, strengths)))
    assert fit.variance.sqrt().mean().item() == pytest.approx(5.0, rel=0.01)
    if share:
        assert fit.spikes.double().mean().item() == pytest.approx(len(strengths), rel=0.03)


@pytest.mark.parametrize(("excess", "place", "deviation"), [(1.0, 3.0, 0.045), (2.0, 3.75, 0.089), (0.5, None, None)])
def test_covariance_spike(excess, place, deviation):
    stack = noise(4, 3, 2000, 1000)
    stack[:, :, 0] *= (1 + excess) ** 0.5
    rows = spectra.rows(stack, ("ranks", "bulk"))
    top = np.mean([row["lambda_max"] for row in rows])
    if place is None:
        assert top == pytest.approx(2.9142, abs=0.03)
        assert [row["n_spikes"] for row in rows] == [0, 0, 0]
    else:
        assert top == pytest.approx(place, abs=3 * deviation / 3**0.5)
        assert [row["n_spikes"] for row in rows] == [1, 1, 1]


def test_columns_by_hand():
    row = spectra.rows(with_spikes(6, 1, 300, 100, [4.0, 3.0]))[0]
    lam = spectra.eigenvalues(with_spikes(6, 1, 300, 100, [4.0, 3.0]))[0]
    assert row["n_spikes"] == 2
    variance = lam[2:].sum().item() * 300 / (298 * 98)
    root = (100 / 300) ** 0.5
    assert row["sigma_mp"] == pytest.approx(variance**0.5)
    assert row["sigma_bulk"] == pytest.approx((lam[2:].sum().item() / 98) ** 0.5)
    assert row["lambda_plus"] == pytest.approx(variance * (1 + root) ** 2)
    assert row["lambda_minus"] == pytest.approx(variance * (1 - root) ** 2)
    assert row["mp_softrank"] == pytest.approx(row["lambda_plus"] / lam[0].item())
    scale = root * ((1 + root) ** 2) ** (2 / 3) * 100 ** (-2 / 3)
    assert row["tw_gap"] == pytest.approx((lam[0].item() / variance - (1 + root) ** 2) / scale, rel=0.02)
    # the distance of the bulk from its law, step by step
    model = marchenko_pastur.cdf(lam[2:].flip(0) * 300 / (variance * 298), torch.tensor(98 / 298).double()).numpy()
    steps = np.arange(99) / 98
    assert row["mp_distance"] == pytest.approx(max((steps[1:] - model).max(), (model - steps[:-1]).max()), rel=1e-9)


def test_distance_of_noise_stays_within_its_quantile_and_of_other_spectra_does_not():
    for rows, cols in ((32, 32), (256, 64), (200, 200)):
        out = bulk.misplaced(Spectrum.of(noise(6, 200, rows, cols)))
        limit = bulk.misplaced_by_noise(torch.tensor(float(cols)))
        assert (out <= limit).double().mean().item() >= 0.95
    columns = torch.exp(0.5 * torch.randn(10, 1, 64, generator=seeded(7)))
    out = bulk.misplaced(Spectrum.of(noise(7, 10, 256, 64) * columns))
    assert (out > bulk.misplaced_by_noise(torch.tensor(64.0))).all()


def test_a_softrank_is_at_most_one():
    assert max(row["mp_softrank"] for row in spectra.rows(noise(8, 50, 40, 40), ("bulk",))) == 1.0


def test_no_bulk_is_said():
    heavy = torch.rand(1, 200, 100, generator=seeded(9), dtype=torch.float64) ** -2.0
    row = spectra.rows(heavy)[0]
    assert row["n_spikes"] == 50 and row["mp_softrank"] < 1e-3 and row["mp_distance"] > 0.1
