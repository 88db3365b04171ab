"""Rank correlation of means, and how often its interval covers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis.laws.trend import spearman, trend
from trials.errors import UserError

X = np.repeat(np.arange(1.0, 11.0), 3)


def test_it_is_spearmans_of_the_means() -> None:
    data = pd.DataFrame({"x": X, "y": np.sin(X) + 0.1 * np.random.default_rng(0).normal(size=30)})
    fit = trend(data, "x", "y")
    means = data.groupby("x")["y"].mean()
    assert fit.estimates["rank_correlation"].value == pytest.approx(spearmanr(means.index, means).statistic)
    assert fit.data["n"].tolist() == [3] * 10


def test_what_only_rises_is_1_and_surely_above_0() -> None:
    rising = trend(pd.DataFrame({"x": X, "y": X**3}), "x", "y").estimates["rank_correlation"]
    assert (rising.value, rising.high) == (pytest.approx(1.0), 1.0) and rising.low > 0.5
    falling = trend(pd.DataFrame({"x": X, "y": -X}), "x", "y").estimates["rank_correlation"]
    assert (falling.value, falling.low) == (pytest.approx(-1.0), -1.0) and falling.high == pytest.approx(-rising.low)


@pytest.mark.parametrize(("n", "rho"), [(6, 0.0), (10, 0.5), (20, 0.9)])
def test_the_interval_covers(n: int, rho: float) -> None:
    """The rank correlation of two normal variables of correlation rho is (6 / pi) asin(rho / 2)."""
    rng, truth, covered = np.random.default_rng(n), 6 / np.pi * np.arcsin(rho / 2), 0
    for _ in range(600):
        x, e = rng.normal(size=(2, n))
        data = pd.DataFrame({"x": x, "y": rho * x + np.sqrt(1 - rho**2) * e})
        covered += trend(data, "x", "y").estimates["rank_correlation"].covers(truth)
    assert 0.92 < covered / 600 < 0.99


def test_a_seed_that_is_missing_where_x_is_large_makes_no_trend() -> None:
    """The highest of three seeds diverges at the largest x: without ``crossed`` the means fall there."""
    rng, said = np.random.default_rng(0), np.zeros(2)
    for _ in range(60):
        shift = rng.normal(size=3)
        data = pd.DataFrame({"x": X, "seed": np.tile(np.arange(3), 10)})
        data["y"] = shift[data["seed"]] + 0.1 * rng.normal(size=30)
        data = data[(data["seed"] != shift.argmax()) | (data["x"] < 8)]
        said += [not trend(data, "x", "y", crossed=each).estimates["rank_correlation"].covers(0)
                 for each in ("seed", None)]
    assert said[0] <= 10 < said[1]  # 10 of 60 is a chance of 1e-3 at 5%


@pytest.mark.parametrize(("data", "message"), [
    ({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 4.0]}, "4 values of x are too few"),
    ({"x": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.0] * 5}, "y is the same at every x"),
    ({"x": [1.0, 2.0]}, "no column called 'y'")])
def test_bad_input(data: dict[str, list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trend(pd.DataFrame(data), "x", "y")


@pytest.mark.parametrize("n", range(5, 60))
def test_what_only_falls_has_a_rank_correlation_of_exactly_minus_one(n: int) -> None:
    data = pd.DataFrame({"x": np.arange(n), "y": -np.arange(n) ** 1.5})
    assert trend(data, "x", "y").estimates["rank_correlation"].value == -1.0
    assert spearman(np.repeat(np.arange(n), 2), np.repeat(np.arange(n), 2)) == 1.0
