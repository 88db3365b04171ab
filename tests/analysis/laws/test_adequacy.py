"""Lack of fit: a law that is wrong is told from settings that scatter about a right one, and from seeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import f

from analysis.laws.adequacy import lack_of_fit, setting_means, shifts
from analysis.laws.fit import fit_law

Array = npt.NDArray[np.float64]


def broken(x: Array) -> Array:
    """Exponent .2 below 32, .7 above."""
    return np.where(x < 32, x**0.2, 32**0.2 * (x / 32) ** 0.7)


def sweep(rng: np.random.Generator, truth: Array, x: Array, seeds: int, noise: float, by_x: float = 0.0,
          by_seed: float = 0.0) -> pd.DataFrame:
    """A row for each x and seed."""
    e = noise * rng.normal(size=(len(x), seeds)) + by_x * rng.normal(size=(len(x), 1))
    e = e + by_seed * rng.normal(size=seeds)
    rows = pd.MultiIndex.from_product([x, range(seeds)], names=["x", "seed"]).to_frame(index=False)
    return rows.assign(y=(truth[:, None] * np.exp(e)).ravel())


def misfits(data: list[pd.DataFrame], law: str = "power") -> int:
    """How many are said not to fit."""
    return sum(lack_of_fit(fit_law(each, law, "x", "y", cluster="x" if each["x"].duplicated().any() else None),
                           each["seed"]).misfit for each in data)


@pytest.mark.parametrize(("seeds", "noise", "by_x", "by_seed"), [
    (1, 0.1, 0.0, 0.0), (3, 0.1, 0.0, 0.0), (3, 0.05, 0.15, 0.0), (3, 0.05, 0.0, 0.3)])
@pytest.mark.parametrize("size", [5, 11])
def test_a_law_that_is_right_fits_also_where_settings_scatter_about_it(size: int, seeds: int, noise: float,
                                                                       by_x: float, by_seed: float) -> None:
    rng, x = np.random.default_rng(size), np.geomspace(1, 1024, size)
    found = misfits([sweep(rng, x**0.5, x, seeds, noise, by_x, by_seed) for _ in range(100)])
    assert found <= 13  # more than these of 100 has a chance below 1e-3 at 5%


def test_seeds_that_some_settings_lack_are_no_misfit() -> None:
    """The highest of three seeds diverges at the largest x."""
    rng, x = np.random.default_rng(0), np.geomspace(1, 1024, 11)
    rows = []
    for _ in range(100):
        data = sweep(rng, x**0.5, x, 3, 0.05, by_seed=0.3)
        gone = (data["x"] > 200) & (data["seed"] == data.groupby("seed")["y"].mean().idxmax())
        rows.append(data[~gone].reset_index(drop=True))
    assert misfits(rows) <= 13


@pytest.mark.parametrize(("law", "truth", "seeds"), [
    ("power", broken, 3), ("power", broken, 1), ("linear", lambda x: 1 + np.log(x), 1),
    ("saturating", np.sqrt, 3), ("constant", lambda x: x**0.1, 3)])
def test_a_law_that_is_wrong_does_not_fit(law: str, truth: object, seeds: int) -> None:
    assert callable(truth)
    rng, x = np.random.default_rng(1), np.geomspace(1, 1024, 11)
    assert misfits([sweep(rng, truth(x), x, seeds, 0.1) for _ in range(10)], law) >= 9


def test_it_is_the_textbooks_f_test_of_a_parabola() -> None:
    x = np.geomspace(1, 32, 6)
    data = sweep(np.random.default_rng(3), x**0.5, x, 1, 0.1)
    u, v = np.log(x), np.log(data["y"].to_numpy())
    left = [((v - np.polyval(np.polyfit(u, v, degree), u)) ** 2).sum() for degree in (1, 2)]
    found = lack_of_fit(fit_law(data, "power", "x", "y"))
    assert found.p == pytest.approx(f.sf((left[0] - left[1]) / (left[1] / 3), 1, 3), rel=1e-6)
    assert "power fits: p = " in found.because and "6 means along x" in found.because


def test_two_inputs_and_exact_and_few_data() -> None:
    a, b = (each.ravel() for each in np.meshgrid(2.0 ** np.arange(5), 2.0 ** np.arange(4)))
    rng = np.random.default_rng(0)
    y = a**0.5 / b * np.exp(0.05 * rng.normal(size=20))
    two = [lack_of_fit(fit_law(pd.DataFrame({"a": a, "b": b, "y": each}), "power2", ["a", "b"], "y"))
           for each in (y, y * np.exp(0.3 * np.log(a) * np.log(b)))]
    assert not two[0].misfit and two[1].misfit and "along a and b" in two[1].because
    x = np.arange(1.0, 9.0)
    assert lack_of_fit(fit_law(pd.DataFrame({"x": x, "y": x**0.5}), "power", "x", "y")).p == 1.0
    few = lack_of_fit(fit_law(pd.DataFrame({"x": x[:3], "y": [1.0, 9.0, 2.0]}), "power", "x", "y"))
    assert np.isnan(few.p) and not few.misfit and "3 values of x are too few" in few.because


def test_means_without_what_seeds_shift() -> None:
    settings, seeds = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])
    values = np.array([1.0, 2.0, 5.0])[settings] + np.array([-0.5, 0.5])[seeds]
    np.testing.assert_allclose(setting_means(values, settings, seeds), [1.0, 2.0, 5.0])
    np.testing.assert_allclose(setting_means(values, settings), [1.0, 2.0, 5.5])
    assert (shifts(values[:4], settings[:4], seeds[:4]) == 0).all()  # all have the same
    assert (shifts(values[[0, 3, 4]], settings[[0, 3, 4]], np.array([0, 1, 2])) == 0).all()  # none is shared
