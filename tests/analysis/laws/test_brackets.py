"""All laws through brackets: against a linear program, and largest stable values of laws that are slow for the grid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from analysis.laws import forms
from analysis.laws.adequacy import lack_of_fit
from analysis.laws.brackets import allowed
from analysis.laws.fit import pose, solve
from analysis.laws.intervals import Problem
from analysis.laws.law import Array
from analysis.laws.optimum import fit_optimum

X = 2.0 ** np.arange(9)


def bracketed(law: str, y: Array) -> tuple[Problem, Array, Array, Array]:
    """A law of the middles of brackets on a grid of factors 1.78, and their ends."""
    grid = 1.78 ** np.arange(-20.0, 20.0)
    place = np.searchsorted(grid, y)
    low, high = np.log(grid[place - 1]), np.log(grid[place])
    problem = pose(pd.DataFrame({"x": X, "y": np.exp((low + high) / 2)}), forms.law(law), ["x"], "y")
    return problem, solve(problem)[0], low, high


def test_ends_of_a_power_law_are_those_of_a_linear_program() -> None:
    problem, best, low, high = bracketed("power", 0.3 * X**0.2)
    ends = allowed(problem, best, low, high)
    columns = np.column_stack([np.ones(9), np.log(X)])
    for each, side in np.ndindex(2, 2):
        aim = np.eye(2)[each] * (1 - 2 * side)
        found = linprog(aim, np.vstack([columns, -columns]), np.append(high, -low), bounds=(None, None)).x
        assert ends is not None and ends[each, side] == pytest.approx(found[each], abs=1e-4)


def test_ends_that_brackets_leave_open_and_brackets_that_no_law_goes_through() -> None:
    ends = allowed(*bracketed("power_offset", 0.1 + X**-0.5))
    assert ends is not None and ends[0, 0] == -np.inf  # the offset may be 0
    assert ends[2, 0] < -0.5 < ends[2, 1] and np.isfinite(ends[2]).all()
    assert allowed(*bracketed("power", np.where(X < 16, 0.1, 10.0))) is None


@pytest.mark.parametrize(("exponent", "seeds", "spread"), [(0.0, 3, 0.0), (-0.02, 1, 0.0), (-0.05, 3, 0.0),
                                                           (-0.02, 3, 0.02), (-0.1, 1, 0.05), (-0.3, 3, 0.0)])
def test_a_law_that_is_slow_against_the_grid_is_held_and_fits(exponent: float, seeds: int, spread: float) -> None:
    """The errors of neighbours are a sawtooth: no variance says how far it leads."""
    rng, held, told = np.random.default_rng(0), 0, 0
    every = pd.MultiIndex.from_product([X, range(13), range(seeds)], names=["batch", "place", "seed"])
    rows = every.to_frame(index=False)
    trial = rows.groupby(["batch", "seed"]).ngroup().to_numpy()
    for _ in range(12):
        rate = rows["place"] - rng.uniform(5, 7)
        edge = exponent * np.log(rows["batch"] / 16) / np.log(1.78) + spread * rng.normal(size=9 * seeds)[trial]
        data = rows.assign(lr=1.78 ** rate, stable=rate < edge)
        fit = fit_optimum(data, "power", "lr", "stable", "batch", mode="largest_stable")
        held += fit.estimates["exponent"].covers(exponent)
        told += lack_of_fit(fit).misfit
    assert held >= 9 and told <= 4  # a chance of 1e-3 lies beyond, at 95% and 5%


def test_a_knee_of_largest_stable_values_is_no_power_law() -> None:
    rows = pd.MultiIndex.from_product([X, np.geomspace(1e-3, 10, 25)], names=["batch", "lr"]).to_frame(index=False)
    data = rows.assign(stable=rows["lr"] < 0.01 * rows["batch"].clip(upper=16))
    knee, straight = (lack_of_fit(fit_optimum(each, "power", "lr", "stable", "batch", mode="largest_stable"))
                      for each in (data, rows.assign(stable=rows["lr"] < 0.01 * rows["batch"])))
    assert knee.misfit and not straight.misfit and "all that the grid leaves open" in straight.because
