"""The broken power law against planted breaks, and where it is refused or not preferred."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.laws.broken import BROKEN_POWER, fit_broken
from analysis.laws.compare import compare
from analysis.laws.fit import fit_law
from trials.errors import UserError

TRUTH = (0.5, 30.0, 0.2, 0.5, 1e3, 0.3)


def broken(x, offset, scale, exponent, change, place, sharpness):
    return offset + scale * x**-exponent * (1 + (x / place) ** (1 / sharpness)) ** (-change * sharpness)


def table(y, noise, count=24, decades=6):
    x = np.geomspace(1, 10**decades, count)
    return pd.DataFrame({"x": x, "y": y(x) * np.exp(noise * np.random.default_rng(0).normal(size=count))})


def test_a_planted_break_is_found():
    data = table(lambda x: broken(x, *TRUTH), 0.003)
    fit = fit_broken(data, "x", "y")
    assert all(each.covers(truth) for each, truth in zip(fit.estimates.values(), TRUTH, strict=True))
    assert fit.estimates["break"].high / fit.estimates["break"].low < 1.2 and fit.estimates["change"].low > 0.45
    table_of = compare([fit, fit_law(data, "power_offset", "x", "y"), fit_law(data, "power", "x", "y")])
    assert table_of["law"][0] == "broken_power" and table_of["evidence"][1] > 1e6


def test_the_law_is_that_of_the_paper_and_no_sharpness_overflows():
    x = np.geomspace(1e-3, 1e9, 40)
    np.testing.assert_allclose(BROKEN_POWER.predict(np.array(TRUTH), x[:, None]), broken(x, *TRUTH), rtol=1e-12)
    corner = np.where(x < 1e3, 30 * x**-0.2, 30 * x**-0.7 * 1e3**0.5) + 0.5
    np.testing.assert_allclose(BROKEN_POWER.predict(np.array([*TRUTH[:5], 1e-6]), x[:, None]), corner, rtol=1e-4)


def test_a_plain_power_is_preferred_where_there_is_no_break():
    data = table(lambda x: 3 * x**-0.3, 0.01, count=14)
    table_of = compare([fit_broken(data, "x", "y"), fit_law(data, "power", "x", "y")])
    assert table_of["law"][0] == "power" and table_of["delta"][1] > 2


@pytest.mark.parametrize("count, decades, message", [
    (30, 2.9, "x has 30 different values from 1 to 794.328; a break takes 12 over 3 decades"),
    (11, 6, "x has 11 different values")])
def test_narrow_or_few_data_are_refused(count, decades, message):
    with pytest.raises(UserError, match=message):
        fit_broken(table(lambda x: x**-0.3, 0.01, count, decades), "x", "y")
    assert fit_broken(table(lambda x: broken(x, *TRUTH), 1e-3, 12, 6), "x", "y").n == 12


def test_other_bad_input_is_named():
    data = table(lambda x: x**-0.3, 0.01)
    with pytest.raises(UserError, match="broken_power: no column called 'z'"):
        fit_broken(data, "z", "y")
    with pytest.raises(UserError, match="from 0 to"):
        fit_broken(data.assign(x=data["x"] - 1), "x", "y")
    with pytest.raises(UserError, match="y = -1"):
        fit_broken(data.assign(y=-1.0), "x", "y")
