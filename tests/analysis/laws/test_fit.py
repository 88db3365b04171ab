"""Fits against textbook regression, brute force and dense matrices; open ends where the data leave them open."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, optimize, stats

from analysis.laws.fit import fit_law
from trials.errors import UserError


def table(x, y, noise=0.1, seed=0, **columns):
    rng = np.random.default_rng(seed)
    x = np.asarray(x, float)
    return pd.DataFrame({"x": x, "y": y(x) * np.exp(noise * rng.normal(size=len(x))), **columns})


def root(x):
    return 3 * x**0.5


def saturating(x):
    return 2 / (1 + 101 / x)


POWER = table(np.geomspace(1, 1000, 9), root)
BENT = table(2.0 ** np.arange(11), saturating)


def test_a_power_law_is_linear_regression():
    fit, line = fit_law(POWER, "power", "x", "y"), stats.linregress(np.log(POWER["x"]), np.log(POWER["y"]))
    t = stats.t.ppf(0.975, 7)
    exponent, scale = fit.estimates["exponent"], fit.estimates["scale"]
    ends = line.slope + np.array([0, -1, 1]) * t * line.stderr
    np.testing.assert_allclose([exponent.value, exponent.low, exponent.high], ends, rtol=1e-6)
    ends = np.exp(line.intercept + np.array([0, -1, 1]) * t * line.intercept_stderr)
    np.testing.assert_allclose([scale.value, scale.low, scale.high], ends, rtol=1e-6)
    assert fit.n == 9 and "7 degrees" in fit.method
    narrow = fit_law(POWER, "power", "x", "y", level=0.5).estimates["exponent"]
    assert narrow.level == 0.5
    assert narrow.high - narrow.value == pytest.approx(stats.t.ppf(0.75, 7) * line.stderr, rel=1e-6)


@pytest.mark.parametrize("name, form", [
    ("saturating", lambda x, a, b: a - np.log1p(np.exp(b) / x)),
    ("surge", lambda x, a, b: a + np.log(2) - np.log(np.sqrt(np.exp(b) / x) + np.sqrt(x / np.exp(b)))),
    ("power_offset", lambda x, a, b, c: np.log(np.exp(a) + np.exp(b) * x**c))])
def test_minima_are_those_of_scipy(name, form):
    y = {"saturating": saturating, "surge": lambda x: 2 / (np.sqrt(64 / x) + np.sqrt(x / 64)),
         "power_offset": lambda x: 0.5 + 2 * x**-0.5}[name]
    data = table(2.0 ** np.arange(11), y, noise=0.05)
    fit = fit_law(data, name, "x", "y")
    first = [0.0, 3.0] if name != "power_offset" else [-1.0, 0.5, -0.4]
    found, _ = optimize.curve_fit(form, data["x"], np.log(data["y"]), first, xtol=1e-14, ftol=1e-14)
    found = [*np.exp(found[:2]), *found[2:]]
    np.testing.assert_allclose(fit.parameters, found, rtol=1e-5)


def test_profile_ends_are_where_the_sum_of_squares_is_t_squared_variances_above():
    fit = fit_law(BENT, "saturating", "x", "y")

    def squares(x_half):  # the best maximum is a mean in logarithms
        rest = np.log(BENT["y"]) + np.log1p(x_half / BENT["x"])
        return ((rest - rest.mean()) ** 2).sum()

    best = squares(fit.estimates["x_half"].value)
    for end in (fit.estimates["x_half"].low, fit.estimates["x_half"].high):
        t = np.sqrt((squares(end) - best) / (best / 9))
        assert t == pytest.approx(stats.t.ppf(0.975, 9), rel=2e-3)


def test_ends_that_the_data_leave_open():
    x = np.geomspace(1, 1000, 9)
    steep = fit_law(table(x, lambda x: 3 * x, 0.05), "saturating", "x", "y").estimates
    assert steep["x_half"].high == steep["maximum"].high == np.inf and steep["x_half"].low > 1000
    flat = fit_law(table(x, lambda x: 5 + 0 * x, 0.05), "saturating", "x", "y").estimates
    assert flat["x_half"].low == 0 and flat["x_half"].high < 1
    assert 4.5 < flat["maximum"].low < flat["maximum"].high < 5.5
    no_floor = fit_law(table(x, lambda x: 3 / x, 0.05), "power_offset", "x", "y").estimates
    assert no_floor["offset"].low == 0 and no_floor["offset"].high < 3.3e-3 and no_floor["exponent"].covers(-1)


def test_inputs_that_move_together_leave_both_exponents_open():
    data = table(np.geomspace(1, 1000, 9), root).assign(z=lambda rows: 5 * rows["x"] ** 2)
    fit = fit_law(data, "power2", ["x", "z"], "y")
    for name in ("exponent1", "exponent2"):
        assert (fit.estimates[name].low, fit.estimates[name].high) == (-np.inf, np.inf)
    alone = fit_law(data, "power", "x", "y")
    np.testing.assert_allclose(fit.predict(data[["x", "z"]]), alone.predict(data["x"]), rtol=1e-6)


@pytest.mark.parametrize("law", ["power", "saturating", "surge"])
def test_units_change_nothing(law):
    one = fit_law(BENT, law, "x", "y")
    other = fit_law(BENT.assign(x=BENT["x"] * 1e6, y=BENT["y"] * 1e-9), law, "x", "y")
    second = list(one.estimates)[1]
    factor = 1 if second == "exponent" else 1e6
    for end in ("low", "high", *(["value"] if law != "surge" else [])):  # its peak is open, and the value anywhere
        expected = factor * getattr(one.estimates[second], end)
        assert getattr(other.estimates[second], end) == pytest.approx(expected, rel=1e-3)


def dense_cr2(design, target, codes, each):
    """Standard error and degrees of freedom of one coefficient by the formulas as printed."""
    n, inverse = len(target), np.linalg.inv(design.T @ design)
    rest = np.eye(n) - design @ inverse @ design.T
    residual, total, spread = rest @ target, 0.0, []
    for code in np.unique(codes):
        rows = codes == code
        correction = linalg.fractional_matrix_power(rest[np.ix_(rows, rows)], -0.5).real
        weight = correction @ design[rows] @ inverse[each]
        total += (weight @ residual[rows]) ** 2
        spread.append(rest[:, rows] @ weight)
    kernel = np.array(spread) @ np.array(spread).T
    return np.sqrt(total), np.trace(kernel) ** 2 / (kernel**2).sum()


@pytest.mark.parametrize("within", [True, False])
def test_clusters_have_the_sandwich_of_bell_and_mccaffrey(within):
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(6), [2, 3, 4, 2, 3, 4])
    x = rng.uniform(1, 100, 18) if within else np.geomspace(1, 100, 6)[codes]
    data = table(x, root).assign(who=list(map("trial {}".format, codes)))
    data["y"] *= np.exp(0.3 * rng.normal(size=6))[codes]
    fit = fit_law(data, "power", "x", "y", cluster="who")
    design = np.column_stack([np.ones(18), np.log(x)])
    se, dof = dense_cr2(design, np.log(data["y"]).to_numpy(), codes, 1)
    exponent = fit.estimates["exponent"]
    assert exponent.high - exponent.value == pytest.approx(stats.t.ppf(0.975, dof) * se, rel=1e-5)
    assert "6 clusters of who" in fit.method and fit.data["cluster"].tolist() == codes.tolist()


def test_repeated_rows_add_nothing():
    once = POWER.assign(trial=range(9))
    thrice = pd.concat([once] * 3, ignore_index=True)
    one, three = (fit_law(data, "power", "x", "y", cluster="trial").estimates for data in (once, thrice))
    for name in one:
        assert str(one[name]) == str(three[name])
    alone = fit_law(thrice, "power", "x", "y").estimates["exponent"]
    assert alone.high - alone.low < 0.8 * (three["exponent"].high - three["exponent"].low)


@pytest.mark.parametrize("cluster", [None, "trial"])
def test_the_bootstrap_of_a_line_is_the_profile_with_clusters(cluster):
    data = table(np.tile(np.geomspace(1, 1000, 10), 3), root).assign(trial=np.tile(np.arange(10), 3), row=range(30))
    # Quartiles of 1000 draws are known to 4%, and hardly depend on the degrees of freedom.
    percentiles = fit_law(data, "power", "x", "y", cluster=cluster, method="bootstrap", level=0.5)
    profile = fit_law(data, "power", "x", "y", cluster=cluster or "row", level=0.5)
    for name in ("scale", "exponent"):
        one, other = (np.log(fit.estimates[name].high / fit.estimates[name].low) for fit in (percentiles, profile))
        assert 0.88 < one / other < 1.12
    assert percentiles.draws.shape == (1000, 2) and "wild bootstrap" in percentiles.method
    again = fit_law(data, "power", "x", "y", cluster=cluster, method="bootstrap", level=0.5)
    assert again.estimates == percentiles.estimates


def test_the_band_of_a_power_law_is_that_of_its_line():
    fit = fit_law(POWER, "power", "x", "y")
    low, high = fit.band(POWER["x"])
    half = stats.t.ppf(0.975, 7) * fit.sigma * np.sqrt(fit.data["leverage"])
    np.testing.assert_allclose(np.log(high / low) / 2, half, rtol=0.25)  # 400 draws: 7% each
    assert np.mean(np.log(high / low) / 2 / half) == pytest.approx(1, abs=0.12)
    assert fit.data["leverage"].sum() == pytest.approx(2)
    bent_low, bent_high = fit_law(BENT, "saturating", "x", "y").band(BENT["x"])
    assert (bent_low < saturating(BENT["x"])).all() and (saturating(BENT["x"]) < bent_high).all()


def test_aicc_is_that_of_the_density_of_y():
    n, log, straight = len(POWER), fit_law(POWER, "power", "x", "y"), fit_law(POWER, "linear", "x", "y")
    correction = 2 * 3 * n / (n - 4)
    sigma = np.sqrt((log.data["residual"] ** 2).mean())
    density = stats.lognorm.logpdf(POWER["y"], s=sigma, scale=log.data["fitted"]).sum()
    assert log.aicc == pytest.approx(-2 * density + correction, rel=1e-9)
    sigma = np.sqrt((straight.data["residual"] ** 2).mean())
    density = stats.norm.logpdf(POWER["y"], straight.data["fitted"], sigma).sum()
    assert straight.aicc == pytest.approx(-2 * density + correction, rel=1e-9)


def test_aicc_of_clusters_is_that_of_correlated_rows():
    codes = np.tile(np.arange(6), 3)
    data = table(np.geomspace(1, 100, 6)[codes], root).assign(trial=codes)
    data["y"] *= np.exp(0.3 * np.random.default_rng(1).normal(size=6))[codes]
    fit = fit_law(data, "power", "x", "y", cluster="trial")
    residual, same = fit.data["residual"], codes[:, None] == codes

    def deviance(shape):
        covariance = np.exp(shape[0]) * np.eye(18) + np.exp(shape[1]) * same
        return -2 * stats.multivariate_normal.logpdf(residual, cov=covariance) + 2 * np.log(data["y"]).sum()

    least = optimize.minimize(deviance, [-4.0, -3.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).fun
    assert fit.aicc == pytest.approx(least + 2 * 4 * 18 / 13, abs=1e-4)


def test_rows_without_numbers_are_left_out_and_counted():
    data = POWER.assign(y=POWER["y"].where(POWER.index != 3), x=POWER["x"].replace(POWER["x"][5], np.inf))
    fit = fit_law(data, "power", "x", "y")
    assert fit.data.index.tolist() == [0, 1, 2, 4, 6, 7, 8]
    assert fit.method.endswith("; 2 of 9 rows without numbers left out")
    whole = fit_law(data.astype({"y": "Float64"}), "power", "x", "y")
    assert whole.estimates == fit.estimates


@pytest.mark.parametrize("change, arguments, message", [
    ({}, {"law": "powr"}, "no law called 'powr'; did you mean 'power'"),
    ({}, {"y": "loss"}, "power: no column called 'loss'; there is"),
    ({}, {"x": ["x", "y"]}, "power: expected 1 columns for x, got 2"),
    ({"x": "a"}, {}, "power: column 'x' holds .*; give a column of numbers"),
    ({"y": np.nan}, {}, "power: no row has numbers in all of x, y"),
    ({"y": 0.0}, {}, "power: y = 0 in a law of its logarithm; leave out rows with y <= 0"),
    ({"x": -2.0}, {}, "power: not defined at x = -2; leave out rows with x <= 0"),
    ({"x": 0.0}, {"law": "saturating"}, "saturating: not defined at x = 0"),
    ({"x": 0.0}, {"law": "log"}, "log: not defined at x = 0"),
    ({"x": 4.0}, {}, "power: 9 rows with 1 different values of x are too few for 2 parameters"),
    ({}, {"cluster": "seed"}, "power: no column called 'seed'"),
    ({"seed": 1}, {"cluster": "seed"}, "power: all rows have the same 'seed'"),
    ({"seed": [None, *"abcdefgh"]}, {"cluster": "seed"}, "power: column 'seed' has missing values")])
def test_bad_input(change, arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        fit_law(POWER.assign(**change), **{"law": "power", "x": "x", "y": "y", **arguments})
    assert "\n" not in str(raised.value)


def test_a_line_may_go_through_negative_numbers():
    x = np.arange(-4.0, 5.0)
    fit = fit_law(pd.DataFrame({"x": x, "y": 1 - 2 * x + 0.1 * np.cos(9 * x)}), "linear", "x", "y")
    assert fit.estimates["slope"].covers(-2) and fit.estimates["offset"].covers(1)
