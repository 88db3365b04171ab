"""Firth's logistic regression against closed forms, and against maxima found by a general optimizer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2
from scipy.stats import f as f_distribution

from analysis.boundaries.firth import firth


def rows(seed=0, n=60, steepness=1.5):
    """A design of 1, u, v and outcomes that depend on v - u."""
    rng = np.random.default_rng(seed)
    design = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    p = 1 / (1 + np.exp(-steepness * (design[:, 2] - design[:, 1] - 0.3)))
    return design, (rng.random(n) < p).astype(float)


def penalized(b, design, ones, penalty=1.0):
    """l* row by row, from the definitions."""
    p = 1 / (1 + np.exp(-design @ b))
    information = sum(q * (1 - q) * np.outer(x, x) for q, x in zip(p, design, strict=True))
    plain = sum(np.log(q if one else 1 - q) for q, one in zip(p, ones, strict=True))
    return plain + penalty * 0.5 * np.log(np.linalg.det(information))


def highest(design, ones, penalty=1.0, plane=None):
    """The maximum of l* (or l) where plane @ b = 0, by Nelder and Mead."""
    basis = np.eye(3) if plane is None else np.linalg.svd(plane[None])[2][1:].T
    found = minimize(lambda c: -penalized(basis @ c, design, ones, penalty), np.zeros(basis.shape[1]),
                     method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000})
    return -found.fun, basis @ found.x


def test_a_share_alone_is_the_shrunken_logit():
    fit = firth(np.ones((10, 1)), np.array([1.0] * 3 + [0.0] * 7))
    assert fit.coefficients[0] == pytest.approx(np.log(3.5 / 7.5), abs=1e-5)


def test_two_shares_add_half_to_every_count():
    """A saturated model (Firth 1993); with 0 of 6 the plain estimate is infinite."""
    fit = firth(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0.0, 5.0]), np.array([6.0, 7.0]))
    below, above = np.log(0.5 / 6.5), np.log(5.5 / 2.5)
    np.testing.assert_allclose(fit.coefficients, [below, above - below], atol=1e-4)
    assert fit.converged


def test_maximum_and_covariance_are_those_of_the_definitions():
    design, ones = rows()
    fit = firth(design, ones)
    value, found = highest(design, ones)
    np.testing.assert_allclose(fit.coefficients, found, atol=1e-4)
    assert fit.log_likelihood == pytest.approx(value, abs=1e-7)
    assert fit.plain == pytest.approx(highest(design, ones, 0.0)[0], abs=1e-7)
    p = 1 / (1 + np.exp(-design @ found))
    np.testing.assert_allclose(np.linalg.inv(fit.covariance), (design.T * p * (1 - p)) @ design, rtol=1e-3)


def test_trials_are_rows_counted_together():
    design, ones = rows(1, n=20)
    apart = firth(np.repeat(design, 3, axis=0), np.ravel([ones, 1 - ones, ones], order="F"))
    together = firth(design, 1 + ones, np.full(20, 3.0))
    np.testing.assert_allclose(together.coefficients, apart.coefficients, atol=1e-4)
    assert together.log_likelihood == pytest.approx(apart.log_likelihood, abs=1e-6)


def test_another_basis_gives_the_same_fit():
    design, ones = rows(2)
    change = np.array([[1.0, 5.0, -3.0], [0.0, 100.0, 7.0], [0.0, 0.0, 0.01]])
    plain, changed = firth(design, ones), firth(design @ change, ones)
    np.testing.assert_allclose(change @ changed.coefficients, plain.coefficients, rtol=1e-4)


def test_ends_of_the_interval_lose_what_the_level_says():
    """Held at an end, l* or l falls by the quantile over 2, by an optimizer that knows nothing of profiles."""
    design, ones = rows(3, n=120)
    fit = firth(design, ones)
    value, low, high = fit.ratio(1, 2)
    assert low < value < high
    assert value == pytest.approx(-fit.coefficients[1] / fit.coefficients[2])
    for end in (low, high):
        plane = np.array([0.0, 1.0, end])
        lost = min(highest(design, ones, penalty)[0] - highest(design, ones, penalty, plane)[0]
                   for penalty in (1.0, 0.0))
        gradient = np.array([0.0, 1.0, value])
        share = gradient @ fit.clustered @ gradient / (gradient @ fit.covariance @ gradient)
        assert 2 * lost / max(1.0, share) == pytest.approx(f_distribution.ppf(0.95, 1, 119), rel=0.01)
        assert fit.test(1, 2, end) == pytest.approx(0.05, abs=0.001)


@pytest.mark.parametrize("gap", [0.1, 1.0])
def test_separated_outcomes_leave_every_line_between_them_in_the_interval(gap):
    rng = np.random.default_rng(4)
    v = np.concatenate([-gap / 2 - rng.random(30), gap / 2 + rng.random(30), [-gap / 2, gap / 2]])
    design = np.column_stack([np.ones(62), rng.normal(size=62), v])
    fit = firth(design, (v > 0).astype(float))
    assert fit.converged and fit.plain == pytest.approx(0.0, abs=1e-3)
    assert np.abs(fit.coefficients).max() < 300
    _, low, high = fit.ratio(0, 2)
    assert low <= -0.49 * gap and high >= 0.49 * gap
    _, least, most = fit.size(2)
    assert 0 < least < np.inf and most == np.inf


def test_no_dependence_leaves_the_ratio_open():
    design, _ = rows(5)
    ones = (np.random.default_rng(6).random(60) < 0.5).astype(float)
    fit = firth(design, ones)
    assert fit.ratio(1, 2)[1:] == (-np.inf, np.inf)
    assert fit.size(2)[1] == 0.0


def test_rows_that_repeat_others_are_no_evidence():
    """Every row four times over is worth no more than once, if it is said that they share chance."""
    design, ones = rows(7, n=150)
    once = firth(design, ones)
    four = np.repeat(design, 4, axis=0), np.repeat(ones, 4)
    blind, told = firth(*four), firth(*four, clusters=np.repeat(np.arange(150), 4))
    width = {name: np.subtract(*fit.ratio(1, 2)[:0:-1]) for name, fit in
             {"once": once, "blind": blind, "told": told}.items()}
    assert width["told"] == pytest.approx(width["once"], rel=0.15)
    assert width["blind"] == pytest.approx(width["once"] / 2, rel=0.15)


def test_draws_spread_as_the_profile_says():
    design, ones = rows(8, n=200)
    fit = firth(design, ones)
    drawn = fit.draws(2, np.random.default_rng(0), len(fit.coefficients))
    for column in (0, 1):
        value, low, high = fit.ratio(column, 2)
        ends = np.quantile(-drawn[:, column] / drawn[:, 2], [0.025, 0.975])
        np.testing.assert_allclose(ends, [low, high], atol=0.2 * (high - low))
        assert ends[0] < value < ends[1]


def test_p_values_are_uniform_where_the_value_is_true():
    p = np.array([firth(*rows(seed, n=200)).test(1, 2, 1.0) for seed in range(200)])
    for level in (0.1, 0.5):
        count = (p < level).sum()
        assert abs(count - 200 * level) < 3.5 * np.sqrt(200 * level * (1 - level))
    assert chi2.sf(-2 * np.log(p).sum(), 400) > 1e-4
