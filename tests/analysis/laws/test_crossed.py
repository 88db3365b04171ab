"""Seeds crossed with settings: a level carries them, a slope does not, and no cell that is missing tilts it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.laws.crossed import Seeds
from analysis.laws.fit import fit_law
from trials.errors import UserError

X = np.geomspace(1, 256, 8)


def sweep(rng, seeds=3, shift=0.3, noise=0.05, tilt=0.0):
    """y = 2 sqrt(x), with a shift and a tilt for each seed (of ln y) and noise."""
    shifts, tilts = shift * rng.normal(size=seeds), tilt * rng.normal(size=seeds)
    frame = pd.MultiIndex.from_product([X, range(seeds)], names=["x", "seed"]).to_frame(index=False)
    x, seed = frame["x"].to_numpy(), frame["seed"].to_numpy()
    error = shifts[seed] + tilts[seed] * np.log(x) + noise * rng.normal(size=len(frame))
    return frame.assign(y=2 * np.sqrt(x) * np.exp(error))


def coverage(make, repeats=40, **options):
    """Shares of repeats whose intervals hold the scale 2 and the exponent 1/2."""
    rng = np.random.default_rng(0)
    fits = [fit_law(make(rng), "power", "x", "y", cluster="x", **options).estimates for _ in range(repeats)]
    return [np.mean([fit[name].covers(truth) for fit in fits]) for name, truth in (("scale", 2), ("exponent", 0.5))]


@pytest.mark.parametrize("seeds", [2, 4])
def test_levels_carry_the_seeds_and_exponents_do_not(seeds):
    """40 repeats of 95%: below 80% in 3 of 10,000 tests. Without ``crossed`` the scale is covered in about half."""
    assert min(coverage(lambda rng: sweep(rng, seeds), crossed="seed")) >= 0.8
    assert coverage(lambda rng: sweep(rng, seeds))[0] < 0.7


@pytest.mark.parametrize("lost", ["highest", "any"])
def test_a_seed_that_is_lost_where_x_is_large_tilts_nothing(lost):
    def make(rng):
        data = sweep(rng)
        seed = data.groupby("seed")["y"].mean().idxmax() if lost == "highest" else rng.integers(3)
        return data[(data["seed"] != seed) | (data["x"] < X[-3])]

    assert min(coverage(make, crossed="seed")) >= 0.8
    assert coverage(make)[1] < 0.75


def test_seeds_that_tilt_the_law_are_carried_by_the_exponent():
    assert min(coverage(lambda rng: sweep(rng, tilt=0.1), crossed="seed")) >= 0.8
    assert coverage(lambda rng: sweep(rng, tilt=0.1))[1] < 0.7
    method = fit_law(sweep(np.random.default_rng(1), tilt=0.3), "power", "x", "y", crossed="seed").method
    assert "crossed with settings" in method and "differ in scale, exponent" in method


def test_balanced_seeds_give_the_two_way_analysis_of_variance():
    """The exponent has the residual of settings x seeds alone; seeds' effects are those of their means."""
    data = sweep(np.random.default_rng(2))
    table = np.log(data["y"]).to_numpy().reshape(len(X), 3)
    u = np.log(X) - np.log(X).mean()
    slope = u @ table.mean(1) / (u @ u)
    fit = fit_law(data, "power", "x", "y", crossed="seed")
    assert fit.estimates["exponent"].value == pytest.approx(slope, rel=1e-9)
    assert fit.estimates["scale"].value == pytest.approx(np.exp(table.mean() - slope * np.log(X).mean()), rel=1e-9)
    residual = table - table.mean(0) - slope * u[:, None]
    assert fit.data["residual"].to_numpy() == pytest.approx(residual.ravel(), abs=1e-9)
    assert fit.sigma == pytest.approx(np.sqrt((residual**2).sum() / (24 - 2 - 2)), rel=1e-9)
    codes, settings = np.tile(np.arange(3), 8), np.repeat(np.arange(8), 3)
    shifts = Seeds.of(codes, settings).shifts(table.ravel() - table.mean())
    assert shifts == pytest.approx(table.mean(0) - table.mean(), abs=1e-12)


def test_the_band_of_a_law_carries_the_seeds():
    data = sweep(np.random.default_rng(3))
    crossed, blind = (fit_law(data, "power", "x", "y", cluster="x", crossed=each) for each in ("seed", None))
    middle = np.array([16.0])
    wide, narrow = (np.ptp(np.log(fit.band(middle)), axis=0) for fit in (crossed, blind))
    assert wide[0] > 3 * narrow[0]
    level = crossed.estimates["scale"]
    assert np.log(level.high / level.low) == pytest.approx(wide[0], rel=0.5)


def test_rivals_are_told_apart_by_what_is_left_without_the_seeds():
    """Shifts of seeds are noise for no law: the evidence for a power over a constant is that without them."""
    rng = np.random.default_rng(4)
    data = sweep(rng, shift=0.0, noise=0.02)
    data["y"] /= data["x"] ** 0.47
    shifted = data.assign(y=data["y"] * np.exp(0.3 * rng.normal(size=3))[data["seed"]])
    plain, moved = ([fit_law(each, law, "x", "y", crossed="seed").aicc for law in ("constant", "power")]
                    for each in (data, shifted))
    assert moved[0] - moved[1] == pytest.approx(plain[0] - plain[1], rel=1e-6)


def test_seeds_that_share_no_setting_are_not_crossed():
    data = sweep(np.random.default_rng(5)).assign(seed=range(24))
    fit = fit_law(data, "power", "x", "y", crossed="seed")
    assert fit.estimates == fit_law(data, "power", "x", "y").estimates
    assert fit.method.endswith("24 values of seed, not crossed with settings")
    one = fit_law(data.assign(seed=7), "power", "x", "y", crossed="seed")
    assert one.method.endswith("of one seed alone: another may shift it")


def test_an_index_that_repeats_itself_is_that_of_the_rows_used():
    data = sweep(np.random.default_rng(6))
    twice = data.set_axis([*range(12), *range(12)])
    one, other = (fit_law(each, "power", "x", "y", crossed="seed") for each in (data, twice))
    assert one.estimates == other.estimates and other.data.index.equals(twice.index)


def test_bad_columns_of_seeds_have_one_line():
    data = sweep(np.random.default_rng(6))
    with pytest.raises(UserError, match="power: no column called 'sede'"):
        fit_law(data, "power", "x", "y", crossed="sede")
    with pytest.raises(UserError, match="power: column 'seed' has missing values"):
        fit_law(data.assign(seed=[None, *range(23)]), "power", "x", "y", crossed="seed")
