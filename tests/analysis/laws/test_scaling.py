"""Loss scaling laws against planted truth and scipy's own minima; crossings of planted laws."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats

from analysis.laws.compare import compare
from analysis.laws.fit import fit_law
from analysis.laws.huber import Huber
from analysis.laws.scaling import LOSS_SCALING, SIZE_SCALING, crossover, fit_scaling
from trials.errors import UserError

TRUTH = np.array([1.69, 406.4, 0.34, 410.7, 0.28])
CROSSING = ((1.6, 100.0, 0.3), (1.2, 60.0, 0.22))  # near 7e8: the first is better below


def grid(side, noise=0.0, seed=0, truth=TRUTH):
    """A row for each of ``side`` sizes and amounts of data."""
    n, d = (each.ravel() for each in np.meshgrid(np.geomspace(1e7, 1e10, side), np.geomspace(1e9, 1e12, side)))
    e, a, alpha, b, beta = truth
    noises = np.exp(noise * np.random.default_rng(seed).normal(size=len(n)))
    return pd.DataFrame({"n": n, "d": d, "loss": (e + a * n**-alpha + b * d**-beta) * noises})


def sizes(truth, noise=0.0, seed=0, count=12, low=1e6, high=1e10):
    """A row for each size, of a law of one input."""
    n = np.geomspace(low, high, count)
    loss = truth[0] + truth[1] * n ** -truth[2]
    return pd.DataFrame({"n": n, "loss": loss * np.exp(noise * np.random.default_rng(seed).normal(size=count))})


def huber(data, delta):
    """The paper's objective of (ln E, ln A, a, ln B, b), written with scipy."""
    n, d, target = (np.log(data[name].to_numpy()) for name in ("n", "d", "loss"))

    def objective(p):
        terms = np.stack([np.full(len(n), p[0]), p[1] - p[2] * n, p[3] - p[4] * d])
        return float(special.huber(delta, target - special.logsumexp(terms, axis=0)).sum())
    return objective


def logged(p):
    return np.array([np.log(p[0]), np.log(p[1]), p[2], np.log(p[3]), p[4]])


def test_the_law_itself_is_found_without_noise():
    np.testing.assert_allclose(fit_scaling(grid(6), "loss", "n", "d").parameters, TRUTH, rtol=1e-4)
    np.testing.assert_allclose(fit_scaling(sizes(TRUTH[:3]), "loss", "n").parameters, TRUTH[:3], rtol=1e-4)
    assert LOSS_SCALING.inputs == 2 and SIZE_SCALING.inputs == 1


@pytest.mark.parametrize("delta", [1e-3, 1e-2])
def test_no_minimum_of_scipy_is_lower(delta):
    data = grid(6, 0.01, seed=3)
    fit, objective = fit_scaling(data, "loss", "n", "d", delta=delta), huber(data, delta)
    best = min(optimize.minimize(objective, logged(TRUTH * np.exp(np.random.default_rng(seed).normal(0, 0.05, 5))),
                                 method="Nelder-Mead", options={"maxfev": 4000, "xatol": 1e-9, "fatol": 1e-12}).fun
               for seed in range(3))
    assert objective(logged(fit.parameters)) <= best * (1 + 1e-6)
    assert f"delta {delta:g}" in fit.method


def test_least_squares_and_the_ends_of_its_profile():
    """With an infinite delta the rise of the sum of squares at each end is that of t with n - P degrees of freedom."""
    data = grid(6, 0.01, seed=1)
    fit = fit_scaling(data, "loss", "n", "d", delta=math.inf)
    n, d, target = data["n"], data["d"], np.log(data["loss"])

    def residuals(p):
        return target - np.log(np.exp(p[0]) + np.exp(p[1]) * n ** -p[2] + np.exp(p[3]) * d ** -p[4])
    least = optimize.least_squares(residuals, logged(TRUTH), x_scale="jac", xtol=1e-14, ftol=1e-14)
    np.testing.assert_allclose(logged(fit.parameters), least.x, rtol=1e-4)
    assert fit.sigma == pytest.approx(math.sqrt(2 * least.cost / 31), rel=1e-6)
    for place, name in ((0, "irreducible"), (2, "n_exponent"), (4, "d_exponent")):
        others = [each for each in range(5) if each != place]
        for end in (fit.estimates[name].low, fit.estimates[name].high):
            held = math.log(end) if place == 0 else end
            rest = optimize.least_squares(lambda p, held=held, place=place: residuals(np.insert(p, place, held)),
                                          least.x[others], x_scale="jac", xtol=1e-14, ftol=1e-14)
            t = math.sqrt(2 * (rest.cost - least.cost)) / fit.sigma
            assert t == pytest.approx(stats.t.ppf(0.975, 31), rel=0.01)


def test_intervals_and_draws_hold_the_truth():
    """95 in 100, of 80 intervals and 80 ranges of draws: fewer than 70 is one case in a thousand."""
    held, drawn = 0, 0
    for seed in range(40):
        fit = fit_scaling(grid(6, 0.01, seed=seed), "loss", "n", "d", seed=seed)
        low, high = np.quantile(fit.draws, [0.025, 0.975], axis=0)
        for place, name in ((2, "n_exponent"), (4, "d_exponent")):
            held += fit.estimates[name].covers(TRUTH[place])
            drawn += bool(low[place] <= TRUTH[place] <= high[place])
    assert 70 <= held < 80 and drawn >= 70


def uneven(seed, noise=0.003):
    """225 runs at nine budgets of compute; losses scatter twenty times as much at the least d as at the largest."""
    compute = np.repeat(np.geomspace(6e17, 6e21, 9), 25)
    n = np.sqrt(compute / 120) * np.tile(np.geomspace(1 / 6, 6, 25), 9)
    d = compute / (6 * n)
    spread = noise * np.exp(3 * np.log(d.max() / d) / np.log(d.max() / d.min()))
    noises = np.exp(spread * np.random.default_rng(seed).normal(size=len(n)))
    return pd.DataFrame({"n": n, "d": d, "loss": (1.69 + 406.4 * n**-0.34 + 410.7 * d**-0.28) * noises})


def test_intervals_are_as_wide_as_estimates_scatter_where_some_regions_are_noisier():
    """The profile of the loss, which takes errors for alike, gives 0.7 of it."""
    scatter, start = [], logged(TRUTH)[None]
    for seed in range(150):
        data = uneven(seed)
        loss = Huber(data[["n", "d"]].to_numpy(), np.log(data["loss"].to_numpy()), 1e-3)
        scatter.append(loss.minimize(start, np.ones_like(start, dtype=bool))[0][0, 4])
    widths = [fit_scaling(uneven(seed), "loss", "n", "d").estimates["d_exponent"] for seed in range(200, 205)]
    assert 0.85 < np.mean([each.high - each.low for each in widths]) / (2 * 1.96 * np.std(scatter)) < 1.3


def test_few_rows_that_sway_a_fit_are_said():
    """Least squares; the Huber loss shrugs off as many on this grid."""
    data = grid(12, 0.005)
    fit = fit_scaling(data, "loss", "n", "d", delta=math.inf)
    data.loc[data["d"].nsmallest(3).index, "loss"] *= 1.5
    swayed = fit_scaling(data, "loss", "n", "d", delta=math.inf)
    assert "swayed by 3 of 144 rows, far from the law: without, " in swayed.method
    said = float(swayed.method.split("d_exponent ")[1].split(",")[0])
    assert abs(said - fit.estimates["d_exponent"].value) < 0.3 * abs(said - swayed.estimates["d_exponent"].value)
    assert "swayed" not in fit.method + fit_scaling(data, "loss", "n", "d").method


def test_a_band_and_an_extrapolation():
    data = grid(6, 0.01)
    fit = fit_scaling(data, "loss", "n", "d")
    low, high = fit.band([[1e8, 1e10]])
    assert low[0] < 1.69 + 406.4 * 1e8**-0.34 + 410.7 * 1e10**-0.28 < high[0] < low[0] * 1.02
    with pytest.raises(UserError, match="n = 1e"):
        fit.predict([[1e11, 1e10]])


def test_a_wrong_row_moves_the_huber_fit_least():
    data = grid(6, 0.005)
    data.loc[7, "loss"] *= 1.3
    robust, squares = (fit_scaling(data, "loss", "n", "d", delta=delta) for delta in (1e-3, math.inf))
    off = [np.abs(np.log(fit.parameters[[2, 4]] / TRUTH[[2, 4]])).max() for fit in (robust, squares)]
    assert off[0] < 0.05 < off[1]


def test_what_the_data_do_not_hold_is_open_and_named():
    """No dependence on d at all: any exponent does with a small enough scale."""
    data = grid(6, 0.01, seed=1, truth=np.array([1.69, 406.4, 0.34, 0.0, 0.28]))
    fit = fit_scaling(data, "loss", "n", "d")
    assert fit.estimates["d_scale"].low == 0 and math.isinf(fit.estimates["d_exponent"].high)
    assert "not identified: d_exponent" in fit.method and math.isfinite(fit.estimates["n_exponent"].high)
    assert fit.estimates["n_exponent"].covers(0.34)


def test_copies_of_rows_say_nothing_new_where_they_are_one_cluster():
    data = sizes(TRUTH[:3], 0.01, seed=5, count=16).assign(run=range(16))
    copies = pd.concat([data] * 3, ignore_index=True)

    def width(rows, **options):
        exponent = fit_scaling(rows, "loss", "n", **options).estimates["n_exponent"]
        return exponent.high - exponent.low
    assert width(copies, cluster="run") == pytest.approx(width(data), rel=0.4)
    assert width(copies) < 0.7 * width(data)


def test_rows_without_numbers_are_left_out_and_laws_compare():
    data = sizes(TRUTH[:3], 0.002, seed=2)
    data.loc[3, "loss"] = np.nan
    fit = fit_scaling(data, "loss", "n")
    assert fit.n == 11 and "1 of 12 rows" in fit.method
    table = compare([fit, fit_law(data, "power", "n", "loss")])
    assert table["law"][0] == "size_scaling" and table["evidence"][1] > 100


def test_a_crossover_lies_where_two_laws_cross():
    first, second = (fit_scaling(sizes(truth, 0.002, seed, count=16), "loss", "n", seed=seed) for seed, truth in
                     enumerate(CROSSING))
    truth = optimize.brentq(lambda u: 0.4 + 100 * np.exp(-0.3 * u) - 60 * np.exp(-0.22 * u), *np.log([1e6, 1e10]))
    found = crossover(first, second)
    assert found.covers(math.exp(truth)) and 1e6 < found.low < found.value < found.high < 1e10
    assert found.high / found.low < 3
    assert crossover(second, first) == found
    narrow = crossover(first, second, level=0.5)
    assert found.low < narrow.low and narrow.high < found.high


def test_no_winner_is_named_outside_the_data():
    """Cut off below the crossing, the laws cross above; cut off above it, below."""
    low, high = ([fit_scaling(sizes(truth, 0.001, seed, low=start, high=end), "loss", "n") for seed, truth in
                  enumerate(CROSSING)] for start, end in ((1e4, 1e7), (3e10, 1e13)))
    above, below = crossover(*low), crossover(*high)
    assert math.isnan(above.value) and above.high == math.inf and above.low > 1e6
    assert math.isnan(below.value) and below.low == -math.inf and below.high < 1e12


def test_laws_that_cross_twice_have_no_crossover():
    first, second = (fit_law(sizes(truth, 0.001, seed), "power_offset", "n", "loss") for seed, truth in
                     enumerate([(1.0, 30.0, 0.2), (1.2, 130.0, 0.3)]))
    gap = np.sign(first.predict(np.geomspace(1e6, 1e10, 50)) - second.predict(np.geomspace(1e6, 1e10, 50)))
    expected = np.count_nonzero(np.diff(gap))
    found = crossover(first, second)
    assert expected == 2 and math.isnan(found.value) and math.isinf(found.low) and math.isinf(found.high)


@pytest.mark.parametrize("change, message", [
    (lambda data: data.rename(columns={"loss": "lost"}), "size_scaling: no column called 'loss'; did you mean 'lost'"),
    (lambda data: data.assign(loss=-1.0), "loss = -1"), (lambda data: data.assign(n=0.0), "n has 1 different values"),
    (lambda data: data.assign(n=[1.0, 2.0, 3.0] * 4), "n has 3 different values"),
    (lambda data: data[:0], "no row has numbers"), (lambda data: data[:3], "it takes 4")])
def test_bad_input_is_named(change, message):
    with pytest.raises(UserError, match=message):
        fit_scaling(change(sizes(TRUTH[:3], 0.01)), "loss", "n")


def test_crossovers_of_laws_that_do_not_compare_are_refused():
    one, two = fit_scaling(sizes(TRUTH[:3], 0.01), "loss", "n"), fit_scaling(grid(4, 0.01), "loss", "n", "d")
    other = fit_scaling(sizes(TRUTH[:3], 0.01, low=1e12, high=1e14), "loss", "n")
    with pytest.raises(UserError, match="same input and outcome"):
        crossover(one, two)
    with pytest.raises(UserError, match="share no range of n"):
        crossover(one, other)
