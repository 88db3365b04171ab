"""Boundaries planted in sweeps: found where they are, with intervals that hold them; none where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.boundaries.surface import fit_boundary, same_slope_test, slope_test
from trials.errors import UserError


def sweep(k=6.0, slope=1.0, bend=0.0, size=10, seeds=3, seed=0, offset=0.1, moved=0.0):
    """A grid of batch size (around 64) and lr (around 0.1), a factor of 2 a step: diverged where lr is high.

    ``moved`` is how much each seed moves the boundary, in ln lr.
    """
    rng = np.random.default_rng(seed)
    ticks = (np.arange(size) - (size - 1) / 2) * np.log(2)
    u, v, s = (each.ravel() for each in np.meshgrid(ticks, ticks, np.arange(seeds), indexing="ij"))
    logits = k * (v - offset - slope * u - bend * u**2 - moved * rng.normal(size=seeds)[s])
    return pd.DataFrame({"batch_size": 64 * np.exp(u), "lr": 0.1 * np.exp(v), "seed": s,
                         "diverged": rng.random(len(u)) < 1 / (1 + np.exp(-logits))})


def fit(data, **more):
    return fit_boundary(data, "diverged", "batch_size", "lr", **more)


@pytest.mark.parametrize("slope", [1.0, 0.5, 0.0])
def test_a_planted_boundary_is_found(slope):
    found = fit(sweep(slope=slope, size=14))
    assert found.kind == "boundary" and found.log == (True, True)
    assert found.p_none == 0.001 and found.n == 14 * 14 * 3
    estimates = found.estimates
    assert list(estimates) == ["slope", "location", "width"]
    for name, truth in (("slope", slope), ("location", 0.1 * np.exp(0.1)), ("width", 2 * np.log(9) / 6)):
        assert estimates[name].covers(truth)
    straight = fit(sweep(slope=slope, size=14), curved=False).estimates["slope"]  # without room for a cubic
    assert straight.covers(slope) and straight.high - straight.low < 0.2
    x = np.array([10.0, 64.0, 500.0])
    low, high = found.band(x)
    truth = 0.1 * np.exp(0.1 + slope * np.log(x / 64))
    assert (low < found.line(x)).all() and (found.line(x) < high).all()
    assert (low < truth).all() and (truth < high).all() and (high < 1.5 * low).all()


@pytest.mark.parametrize(("k", "seeds"), [(2.0, 3), (6.0, 1), (20.0, 1)])
def test_intervals_hold_the_truth_at_any_sharpness(k, seeds):
    """12 sweeps each, of which 95% intervals miss at most 3 but once in 400 times."""
    held = []
    for seed in range(12):
        offset = np.random.default_rng(seed).uniform(-0.35, 0.35)
        estimates = fit(sweep(k, size=8, seeds=seeds, seed=seed, offset=offset), curved=False).estimates
        held.append([estimates["slope"].covers(1.0), estimates["location"].covers(0.1 * np.exp(offset)),
                     estimates["width"].covers(2 * np.log(9) / k)])
    assert (np.sum(held, axis=0) >= 9).all()


def test_a_transition_between_the_points_of_a_grid_may_be_a_step():
    """All lines that part the outcomes belong to the interval: here those within half a step of the middle."""
    data = sweep(seeds=1)
    u, v = np.log(data["batch_size"] / 64), np.log(data["lr"] / 0.1)
    found = fit(data.assign(diverged=v - u > 0.1), curved=False)
    half = np.log(2) / 2
    assert found.estimates["location"].low <= 0.1 * np.exp(0.02)
    assert found.estimates["location"].high >= 0.1 * np.exp(2 * half - 0.02)
    assert found.estimates["width"].low == 0.0
    assert found.estimates["slope"].covers(1.0) and found.estimates["slope"].high < 1.3


def test_a_curve_is_told_from_a_line():
    bent = fit(sweep(bend=0.2, size=12))
    assert bent.p_straight < 0.01 and len(bent.coefficients) == 4
    assert bent.estimates["curvature"].covers(0.4) and bent.estimates["curvature"].low > 0
    assert bent.estimates["slope"].covers(1.0)
    u = np.log(np.array([10.0, 100.0]))
    v = np.log(bent.line(np.exp(u)))
    np.testing.assert_allclose(bent.coefficients @ [np.ones(2), u, v, u**2], 0.0, atol=1e-9)
    straight = fit(sweep(size=12, seed=2))
    assert straight.p_straight > 0.05 and len(straight.coefficients) == 3
    forced = fit(sweep(size=12, seed=2), curved=True)
    assert forced.estimates["curvature"].covers(0.0)


def test_seldom_anything_where_there_is_nothing():
    """Coins: at most 5% by the test's own making; more than 6 of 40 come once in 200 times."""
    kinds = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        coins = rng.random((100, 1)) < [0.02, 0.2, 0.5][seed % 3]
        kinds.append(fit(sweep(seeds=1).assign(diverged=coins), seed=seed).kind)
    assert kinds.count("none") >= 34 and kinds.count("boundary") <= 2


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_outcome_alone_is_no_boundary(outcome):
    found = fit(sweep().assign(diverged=outcome))
    assert found.kind == "none" and found.because == f"all 300 rows are {outcome}"
    assert found.p_none == 1.0 and np.isnan(found.estimates["slope"].value)
    assert np.isnan(slope_test(found)) and np.isnan(same_slope_test([found, found]))
    with pytest.raises(UserError, match="no boundary"):
        found.line([64.0])


def test_seeds_that_agree_are_no_evidence_of_a_boundary():
    """Twenty copies of four diverged trials in a corner of a coin's sweep: a row each would be significant."""
    rng = np.random.default_rng(3)
    coins = np.repeat(rng.random(36) < 0.3, 20)
    found = fit(sweep(size=6, seeds=20).assign(diverged=coins))
    assert found.kind == "none"


def test_a_gradual_change_is_a_crossover():
    found = fit(sweep(k=0.4, size=10, seeds=20))
    assert found.kind == "crossover" and found.p_none < 0.05 and "only from" in found.because
    assert found.estimates["width"].covers(2 * np.log(9) / 0.4)


def test_a_boundary_along_y_has_an_open_slope():
    data = sweep()
    found = fit(data.assign(diverged=data["batch_size"] > 64))
    assert (found.estimates["slope"].low, found.estimates["slope"].high) == (-np.inf, np.inf)
    assert "slope is open" in found.because
    assert all(np.isnan(estimate.value) for estimate in found.estimates.values())  # each is a ratio to what may be 0


def test_censored_rows_are_left_out_and_counted():
    data = sweep()
    data["stopped"] = (data["lr"] > 0.2) & (data["seed"] == 0)
    lies = data.assign(diverged=data["diverged"].where(~data["stopped"]))
    found, without = fit(lies, censored="stopped"), fit(data[~data["stopped"]])
    assert found.estimates == without.estimates
    assert found.n == without.n and len(found.data) == len(data)
    assert f"{int(data['stopped'].sum())} censored rows left out" in found.because


def test_units_move_the_location_and_nothing_else():
    data = sweep(seed=4)
    found, scaled = fit(data), fit(data.assign(lr=1000 * data["lr"], batch_size=data["batch_size"] / 64))
    for name, factor in (("slope", 1), ("location", 1000), ("width", 1)):
        for end in ("value", "low", "high"):
            expected = factor * getattr(found.estimates[name], end)
            assert getattr(scaled.estimates[name], end) == pytest.approx(expected, rel=1e-3)


def test_tables_put_together_repeat_their_index():
    data = sweep(seed=4)
    halves = pd.concat([data[::2].reset_index(drop=True), data[1::2].reset_index(drop=True)])
    assert fit(halves).estimates["slope"].value == pytest.approx(fit(data).estimates["slope"].value)


def test_axes_without_a_decade_stay_as_they_are():
    data = sweep(seed=5)
    data["fraction"] = 0.5 + 0.1 * np.log(data["batch_size"] / 64)
    found = fit_boundary(data, "diverged", "fraction", "lr")
    assert found.log == (False, True) and found.estimates["slope"].covers(10.0)
    assert fit(data, log=(True, False)).log == (True, False)


def test_seeds_that_move_the_boundary_widen_its_location():
    data = sweep(seeds=6, moved=0.5, seed=6)
    blind, told = fit(data), fit(data, cluster="seed")
    wide = [np.log(each.estimates["location"].high / each.estimates["location"].low) for each in (blind, told)]
    assert wide[1] > 1.5 * wide[0]
    assert "6 clusters (seed)" in told.method


def test_the_test_of_a_slope_agrees_with_its_interval():
    found = fit(sweep(k=3.0, seed=7), curved=False)
    slope = found.estimates["slope"]
    assert slope_test(found, slope.value) > 0.99
    for end in (slope.low, slope.high):
        assert slope_test(found, end) == pytest.approx(0.05, abs=0.002)
    assert slope_test(found, 0.0) < 1e-6


def test_slopes_of_groups_are_compared():
    """One slope for all passes at p values that are uniform, and two slopes do not pass."""
    same = [fit(sweep(size=8, seed=seed), curved=False) for seed in range(20, 32)]
    p = np.array([same_slope_test(same[place:place + 3]) for place in range(0, 12, 3)])
    assert p.min() > 0.01 and p.max() > 0.2
    assert same_slope_test([same[0], fit(sweep(slope=0.5, seed=9), curved=False)]) < 1e-3


@pytest.mark.parametrize(("change", "more", "message"), [
    (lambda data: data.rename(columns={"lr": "lrr"}), {}, "no column called 'lr'; did you mean 'lrr'"),
    (lambda data: data.assign(diverged="yes"), {}, "diverged must be 0 or 1, but has yes"),
    (lambda data: data.assign(diverged=data["diverged"].astype(float).where(data["lr"] > 0.1)), {}, "has nan"),
    (lambda data: data.assign(lr="high"), {}, "lr must be finite numbers"),
    (lambda data: data.assign(lr=data["lr"].where(data["seed"] > 0)), {}, "lr must be finite numbers"),
    (lambda data: data.assign(lr=data["lr"] - 0.1), {"log": (True, True)}, "has no logarithm"),
    (lambda data: data.head(0), {}, "0 points of batch_size and lr"),
    (lambda data: data.head(12), {}, "4 points of batch_size and lr"),
    (lambda data: data.assign(lr=0.1), {}, "lie on one line"),
    (lambda data: data.assign(lr=2 * data["batch_size"]), {}, "lie on one line"),
    (lambda data: data.assign(batch_size=np.where(data["batch_size"] > 64, 1, 2)), {"curved": True}, "takes three"),
])
def test_what_cannot_be_fitted_is_said(change, more, message):
    with pytest.raises(UserError, match=message):
        fit(change(sweep()), **more)
