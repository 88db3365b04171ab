"""Which law is preferred, and what may be compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.laws.compare import compare
from analysis.laws.fit import fit_law
from analysis.laws.forms import beside
from trials.errors import UserError

X = 2.0 ** np.arange(11)
SHAPES = {"saturating": 2 / (1 + 101 / X), "power": 3 * X**0.8, "surge": 2 / (np.sqrt(64 / X) + np.sqrt(X / 64)),
          "constant": 2 + 0 * X, "log": 5 + np.log(X), "linear": 400 - 0.3 * X, "power_offset": 0.5 + X**-0.6}


def noisy(y, noise=0.02, seed=0):
    return pd.DataFrame({"x": X, "y": y * np.exp(noise * np.random.default_rng(seed).normal(size=len(X)))})


@pytest.mark.parametrize("name", SHAPES)
def test_the_planted_law_comes_first(name):
    table = compare([fit_law(noisy(SHAPES[name]), each, "x", "y") for each in sorted(SHAPES)])
    assert table["law"][0] == name


def test_columns_by_hand():
    fits = [fit_law(noisy(SHAPES["surge"], 0.5), name, "x", "y") for name in ("constant", "surge", "power_offset")]
    table = compare(fits).set_index("law")
    likelihood = np.exp(-np.array([fit.aicc for fit in fits]) / 2)
    assert table["parameters"].to_dict() == {"constant": 1, "surge": 2, "power_offset": 3}
    np.testing.assert_allclose(table.loc[[fit.law.name for fit in fits], "weight"], likelihood / likelihood.sum())
    np.testing.assert_allclose(table.loc[[fit.law.name for fit in fits], "evidence"], likelihood.max() / likelihood)
    assert table["aicc"].is_monotonic_increasing and table["delta"].iloc[0] == 0


def test_units_of_y_do_not_decide_between_a_law_of_ln_y_and_one_of_y():
    data = noisy(SHAPES["log"], 0.1)
    one, other = (compare([fit_law(each, name, "x", "y") for name in ("log", "power", "saturating")])
                  for each in (data, data.assign(y=1000 * data["y"])))
    pd.testing.assert_frame_equal(one.drop(columns="aicc"), other.drop(columns="aicc"), rtol=1e-6)


def test_what_cannot_be_compared():
    data = noisy(SHAPES["power"]).assign(seed=np.arange(11) // 2)
    power = fit_law(data, "power", "x", "y")
    for other in (data[1:], data.assign(y=2 * data["y"]), data.rename(columns={"y": "z"})):
        with pytest.raises(UserError, match="not fitted to the same rows"):
            compare([power, fit_law(other, "constant", "x", "z" if "z" in other else "y")])
    with pytest.raises(UserError, match="not fitted to the same rows and clusters"):
        compare([power, fit_law(data, "constant", "x", "y", cluster="seed")])
    with pytest.raises(UserError, match="no fits"):
        compare([])
    with pytest.raises(UserError, match="3 rows are too few for AICc"):
        compare([fit_law(data[:3], "power", "x", "y")])
    few = compare([fit_law(data[:4], name, "x", "y") for name in ("power", "constant")])
    assert few["law"].tolist() == ["constant", "power"] and few["weight"].tolist() == [1.0, 0.0]


def test_beside_another_law_a_law_has_the_errors_of_that_one():
    """A line with errors of one size is no less a line for a constant's errors being relative."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.linspace(1, 10, 10), 4)
    data = pd.DataFrame({"x": x, "y": 2 - 0.1 * x + 0.3 * rng.normal(size=40)})
    line = fit_law(data, "linear", "x", "y")
    flat = fit_law(data, beside("constant", line.law), "x", "y")
    assert flat.estimates["value"].value == pytest.approx(data["y"].mean()) and not flat.law.log
    n, squares = 40, [((data["y"] - fit.data["fitted"]) ** 2).sum() for fit in (line, flat)]
    aic = [n * np.log(s / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1) for s, k in zip(squares, (3, 2), strict=True)]
    assert line.aicc - flat.aicc == pytest.approx(aic[0] - aic[1])
    negative = fit_law(data.assign(y=data["y"] - 5), beside("constant", line.law), "x", "y")
    assert negative.estimates["value"].value == pytest.approx(data["y"].mean() - 5)
    assert beside("power", line.law).log is False and beside("constant", fit_law(data, "power", "x", "y").law).log
