"""Seeds that stand at every point and shift the boundary: its location is that of seeds, its slope that within them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.boundaries.seeds import MOST_GROUPS, Seeds
from analysis.boundaries.surface import fit_boundary, slope_test


def sweep(seeds, moved, k=6.0, size=8, seed=0):
    rng = np.random.default_rng(seed)
    ticks = (np.arange(size) - (size - 1) / 2) * np.log(2)
    u, v, s = (each.ravel() for each in np.meshgrid(ticks, ticks, np.arange(seeds), indexing="ij"))
    away = v - 0.7 * u - 0.1 - moved * rng.normal(size=seeds)[s]
    return pd.DataFrame({"batch_size": 64 * np.exp(u), "lr": 0.1 * np.exp(v), "seed": s,
                         "diverged": rng.random(len(u)) < 1 / (1 + np.exp(-np.clip(k * away, -60, 60)))})


def fit(data, **more):
    return fit_boundary(data, "diverged", "batch_size", "lr", curved=False, **more)


@pytest.mark.parametrize(("seeds", "moved", "k"), [(2, 0.5, 6.0), (2, 0.5, 200.0), (2, 1.0, 200.0), (3, 0.5, 6.0),
                                                    (3, 0.5, 200.0), (4, 1.0, 6.0)])
def test_a_location_is_that_of_other_seeds_too(seeds, moved, k):
    """16 sweeps each, of which 95% intervals miss more than 4 once in 1,200 times; that of the points missed half."""
    held = []
    for seed in range(16):
        estimates = fit(sweep(seeds, moved, k, seed=seed), crossed="seed").estimates
        held.append([estimates["location"].covers(0.1 * np.exp(0.1)), estimates["slope"].covers(0.7)])
    assert (np.sum(held, axis=0) >= 12).all()


def test_seeds_that_seem_to_agree_say_little_of_others():
    """Of two seeds at one place, the sd is no less than what the grid lets be known of each."""
    data = sweep(1, 0.0, 200.0)
    both = pd.concat([data, data.assign(seed=1)])
    of_two, of_one = (fit(each, crossed="seed").estimates["location"] for each in (both, data))
    assert np.log(of_two.high / of_two.low) > 2 * np.log(of_one.high / of_one.low)


def test_slopes_are_those_within_seeds():
    data = sweep(4, 1.0, seed=1)
    within, blind = fit(data, crossed="seed"), fit(data)
    width = [each.estimates["slope"].high - each.estimates["slope"].low for each in (within, blind)]
    assert width[0] < 0.8 * width[1]
    assert slope_test(within, within.estimates["slope"].high) == pytest.approx(0.05, abs=0.002)
    low, high = within.band([64.0])
    assert np.log(high / low)[0] > 2 * width[0]


def test_the_method_says_what_seeds_it_is_of():
    assert "with 2 degrees of freedom" in fit(sweep(3, 0.5), crossed="seed").method
    assert "wide, since two seeds say little of others" in fit(sweep(2, 0.5), crossed="seed").method
    assert "of one seed alone" in fit(sweep(1, 0.5), crossed="seed").method


def test_seeds_without_points_in_common_are_not_crossed():
    codes = pd.Series(np.arange(40))
    assert Seeds.of(codes, codes // 2) is None
    assert Seeds.of(codes * 0, codes) is None


def test_many_seeds_are_dealt_into_groups():
    seed, point = (each.ravel() for each in np.meshgrid(np.arange(30), np.arange(10)))
    kept = (seed > 0) | (point < 2)  # seed 0 has two points: no location of its own
    found = Seeds.of(pd.Series(seed[kept]), point[kept])
    assert found is not None and (found.count, found.groups) == (30, MOST_GROUPS)
    assert found.columns.shape == (kept.sum(), MOST_GROUPS - 1)
    few = Seeds.of(pd.Series(np.where(seed > 2, 2, seed)[kept]), point[kept])
    assert few is not None and (few.count, few.groups) == (3, 2)
