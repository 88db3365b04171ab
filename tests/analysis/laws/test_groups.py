"""Several curves at once: groups that share an exponent, and curves that collapse on one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.interpolate import LSQUnivariateSpline

from analysis.laws.collapse import _Curves, collapse
from analysis.laws.fit import fit_law
from analysis.laws.groups import fit_grouped
from trials.errors import UserError

X = 2.0 ** np.arange(8)


def groups(exponents, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return pd.concat([pd.DataFrame({"x": X, "who": who, "y": scale * X**exponent * np.exp(noise * rng.normal(size=8))})
                      for (who, scale), exponent in zip({"sgd": 2.0, "adam": 0.1, "muon": 9.0}.items(), exponents,
                                                        strict=True)], ignore_index=True)


def regression(data, own_slopes):
    """Textbook analysis of covariance: residual sum of squares, and slope with standard error where it is shared."""
    dummies = (data["who"].to_numpy(object)[:, None] == data["who"].unique().to_numpy(object)).astype(float)
    u = np.log(data["x"].to_numpy())[:, None]
    design = np.column_stack([u * dummies if own_slopes else u, dummies])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ np.log(data["y"].to_numpy())
    squares = ((np.log(data["y"]) - design @ coefficients) ** 2).sum()
    return squares, coefficients[0], np.sqrt(squares / (len(data) - design.shape[1]) * inverse[0, 0])


def test_power_laws_with_one_exponent_are_analysis_of_covariance():
    data = groups([0.5, 0.5, 0.5])
    fit = fit_grouped(data, "power", "x", "y", "who", ["exponent"])
    squares, slope, se = regression(data, False)
    shared = fit.shared["exponent"]
    half = stats.t.ppf(0.975, 20) * se
    np.testing.assert_allclose([shared.value, shared.low, shared.high], [slope, slope - half, slope + half], rtol=1e-6)
    own, _, _ = regression(data, True)
    assert fit.p_shared == pytest.approx(stats.f.sf((squares - own) / 2 / (own / 18), 2, 18), rel=1e-6)
    gain = 24 * np.log(own / squares) + 2 * 7 * 24 / 16 - 2 * 5 * 24 / 18
    assert fit.evidence == pytest.approx(np.exp(gain / 2), rel=1e-6) and fit.evidence > 1


def test_each_group_has_its_scale_and_its_law():
    data = groups([0.5, 0.5, 0.5], noise=0.02)
    fit = fit_grouped(data, "power", "x", "y", "who", ["exponent"], level=0.999)
    assert fit.groups["who"].tolist() == ["sgd", "adam", "muon"] and fit.groups["n"].tolist() == [8, 8, 8]
    for truth, low, high in zip((2.0, 0.1, 9.0), fit.groups["scale_low"], fit.groups["scale_high"], strict=True):
        assert low < truth < high < 1.2 * low
    for who, each in fit.fits.items():
        assert each.n == 8 and each.law.name == "power" and each.estimates["exponent"] == fit.shared["exponent"]
        np.testing.assert_allclose(each.predict(X), each.data["fitted"], rtol=1e-9)
        low, high = each.band(X)
        assert ((low < each.predict(X)) & (each.predict(X) < high)).all(), who


def test_different_exponents_are_told_apart():
    fit = fit_grouped(groups([1.0, 0.5, 0.5]), "power", "x", "y", "who", ["exponent"])
    assert fit.p_shared < 1e-6 and fit.evidence < 1e-3


def test_all_or_some_of_the_parameters_may_be_shared():
    data = groups([0.5, 0.5, 0.5])
    both = fit_grouped(data, "power", "x", "y", "who", ["scale", "exponent"])
    one = fit_law(data, "power", "x", "y")
    assert {name: str(each) for name, each in both.shared.items()} == {n: str(e) for n, e in one.estimates.items()}
    bent = pd.concat([pd.DataFrame({"x": X, "who": m, "y": m / (1 + 20 / X)}) for m in (1, 5)], ignore_index=True)
    bent["y"] *= np.exp(0.02 * np.random.default_rng(0).normal(size=16))
    fit = fit_grouped(bent, "saturating", "x", "y", "who", ["x_half"])
    assert fit.shared["x_half"].covers(20) and fit.shared["x_half"].high < 25
    np.testing.assert_allclose(fit.groups["maximum"], [1, 5], rtol=0.05)


def test_bad_groups():
    data = groups([0.5, 0.5, 0.5])
    for arguments, message in [(("who", ["slope"]), "power: no parameter called 'slope'; did you mean 'scale'"),
                               (("who", []), "power: nothing to share; name some of scale, exponent"),
                               (("optimizer", ["exponent"]), "power: no column called 'optimizer'")]:
        with pytest.raises(UserError, match=message):
            fit_grouped(data, "power", "x", "y", *arguments)
    with pytest.raises(UserError, match="power: all rows have the same 'who'"):
        fit_grouped(data[:8], "power", "x", "y", "who", ["exponent"])
    with pytest.raises(UserError, match="who muon: power: 2 rows with 2 different values of x are too few"):
        fit_grouped(data[:18], "power", "x", "y", "who", ["exponent"])


def curves(shape, c, d=0.0, noise=0.05, seed=0):
    frame = pd.MultiIndex.from_product([4.0 ** np.arange(1, 6), np.geomspace(0.01, 1, 7), range(2)],
                                       names=["b", "lr", "seed"]).to_frame(index=False)
    u = np.log(frame["lr"] / frame["b"] ** c)
    error = np.exp(noise * np.random.default_rng(seed).normal(size=len(frame)))
    return frame.assign(y=shape(u - u.mean()) * frame["b"] ** d * error)


def sigmoid(u):
    return 0.1 + 1 / (1 + np.exp(-2 * u))


def peak(u):
    return np.exp(-(u**2) / 8)


@pytest.mark.parametrize("shape, c", [(sigmoid, 1.0), (sigmoid, 0.0), (peak, 0.5), (peak, -1.0),
                                      (lambda u: np.exp(0.5 * u), 1.0)])
def test_the_planted_exponent_collapses_the_curves(shape, c):
    found = collapse(curves(shape, c), "lr", "y", "b")
    exponent = found.estimates["exponent"]
    assert exponent.covers(c) and exponent.high - exponent.low < 0.15
    assert found.p_collapse > 0.01 and 0.04 < found.sigma < 0.06
    np.testing.assert_allclose(found.data["collapsed_x"], found.data["lr"] / found.data["b"] ** exponent.value)
    np.testing.assert_allclose(np.log(found.data["y"] / found.data["fitted"]), found.data["residual"], atol=1e-9)


def test_a_scaled_y_has_an_exponent_too():
    found = collapse(curves(peak, 0.5, d=0.3), "lr", "y", "b", scale_y=True)
    assert found.estimates["exponent"].covers(0.5) and found.estimates["y_exponent"].covers(0.3)
    assert found.estimates["y_exponent"].high - found.estimates["y_exponent"].low < 0.1
    y = found.data["y"] / found.data["b"] ** found.estimates["y_exponent"].value
    np.testing.assert_allclose(found.data["collapsed_y"], y)


def test_what_tells_no_exponent_from_another_leaves_it_open():
    flat = collapse(curves(lambda u: np.ones_like(u), 1.0), "lr", "y", "b")
    assert (flat.estimates["exponent"].low, flat.estimates["exponent"].high) == (-np.inf, np.inf)
    power = collapse(curves(lambda u: np.exp(0.5 * u), 1.0, d=0.2), "lr", "y", "b", scale_y=True)
    for each in power.estimates.values():  # a power law collapses for any exponent, with another power of y
        assert (each.low, each.high) == (-np.inf, np.inf)


def test_curves_that_do_not_collapse_are_told():
    data = curves(sigmoid, 1.0)
    assert collapse(data.assign(y=data["y"] * np.where(data["b"] == 64, 2, 1)), "lr", "y", "b").p_collapse < 1e-6


def test_units_do_not_change_the_exponent():
    data = curves(sigmoid, 1.0)
    other_units = data.assign(lr=data["lr"] * 1e4, b=data["b"] / 7, y=data["y"] * 9)
    one, other = (collapse(each, "lr", "y", "b").estimates["exponent"] for each in (data, other_units))
    np.testing.assert_allclose([other.value, other.low, other.high], [one.value, one.low, one.high], atol=1e-4)


def test_a_table_may_repeat_its_index():
    data = pd.concat([groups([0.5, 0.5, 0.5], seed=seed) for seed in (0, 1)])
    clean = data.reset_index(drop=True)
    one, other = (fit_grouped(each, "power", "x", "y", "who", ["exponent"]) for each in (data, clean))
    assert one.shared == other.shared and one.groups.equals(other.groups)
    one, other = (collapse(curves(sigmoid, 1.0).set_index("seed", drop=False), "lr", "y", "b", cluster="seed")
                  for each in (data, clean))
    assert one.estimates == other.estimates and one.data["cluster"].tolist() == [0, 1] * 35


def test_clusters_widen_the_interval_of_a_collapse_where_they_share_an_error():
    data = curves(sigmoid, 1.0)
    shared = np.exp(0.3 * np.random.default_rng(1).normal(size=5))
    data["y"] *= np.repeat(shared, 14)
    alone, clustered = (collapse(data, "lr", "y", "b", cluster=each) for each in (None, "b"))
    widths = [each.estimates["exponent"].high - each.estimates["exponent"].low for each in (alone, clustered)]
    assert widths[1] > 1.5 * widths[0] and clustered.estimates["exponent"].covers(1.0)
    assert clustered.p_collapse < 1e-3  # each curve has its own level


def settings(y, seed, noise=0.05, by_setting=0.0, by_seed=0.0):
    """Five curves of 7 settings with 3 seeds that all share."""
    rng = np.random.default_rng(seed)
    rows = pd.MultiIndex.from_product([4.0 ** np.arange(1, 6), np.geomspace(0.01, 1, 7), range(3)],
                                      names=["b", "lr", "seed"]).to_frame(index=False)
    code = np.arange(len(rows)) // 3
    error = (noise * rng.normal(size=len(rows)) + by_setting * rng.normal(size=35)[code]
             + by_seed * rng.normal(size=3)[rows["seed"]])
    return rows.assign(y=y(rows["lr"], rows["b"]) * np.exp(error), configuration=code)


@pytest.mark.parametrize(("by_setting", "by_seed", "lost"), [(0.1, 0.0, False), (0.0, 0.3, True)])
def test_one_curve_is_one_curve_to_replicates_too(by_setting, by_seed, lost):
    covered = differ = 0
    for seed in range(10):
        data = settings(lambda lr, b: 0.1 + 1 / (1 + (lr / b * 90) ** -2), seed, 0.05, by_setting, by_seed)
        if lost:  # the highest seed is gone at the largest rates
            data = data[~((data["lr"] > 0.3) & (data["seed"] == data.groupby("seed")["y"].mean().idxmax()))]
        found = collapse(data, "lr", "y", "b", cluster="configuration", crossed="seed")
        covered += found.estimates["exponent"].covers(1.0)
        differ += found.p_collapse < 0.05
    assert differ <= 4 and covered >= 6  # beyond these lies a chance of 1e-3, at 5% and 95%


@pytest.mark.parametrize("y", [lambda lr, b: b**0.3 * (0.1 + 1 / (1 + (lr / b**0.7 * 90) ** -2)),
                               lambda lr, b: 0.1 + 1 / (1 + (lr / b * 90) ** -(0.5 + 0.4 * np.log(b)))])
def test_what_no_exponent_makes_one_curve_is_told_from_replicates(y):
    assert max(collapse(settings(y, seed), "lr", "y", "b", cluster="configuration").p_collapse for seed in range(3)
               ) < 0.05


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_master_curves_are_splines(size):
    rng = np.random.default_rng(0)
    u = np.sort(rng.uniform(-5, 3, 200))
    target = np.sin(u) + 0.1 * rng.normal(size=200)
    design = _Curves(u, np.zeros(200), target, False).design(0.7, size)
    degree, knots = min(size - 1, 3), np.quantile(u, np.linspace(0, 1, max(size - 2, 2))[1:-1])
    np.testing.assert_allclose(design @ np.linalg.lstsq(design, target, rcond=None)[0],
                               LSQUnivariateSpline(u, target, knots, k=degree)(u), atol=1e-9)
    assert design.shape == (200, size)


def test_bad_collapses():
    data = curves(sigmoid, 1.0)
    for change, arguments, message in [
            ({"lr": 0.0}, {}, "collapse: lr = 0 has no logarithm"),
            ({}, {"crossed": "sed"}, "collapse: no column called 'sed'"),
            ({"y": -1.0}, {}, "collapse: y = -1 has no logarithm"),
            ({"b": 4.0}, {}, "70 rows with 1 values of b are too few"), ({"lr": 0.1}, {}, "overlap nowhere"),
            ({}, {"scale_y": True, "log_y": False}, "leave out log_y=False"),
            ({}, {"y": "loss"}, "no column called 'loss'")]:
        with pytest.raises(UserError, match=message):
            collapse(data.assign(**change), **{"x": "lr", "y": "y", "scale": "b", **arguments})
    plain = collapse(data.assign(y=data["y"] - 0.5), "lr", "y", "b", log_y=False)
    assert plain.estimates["exponent"].covers(1.0)
