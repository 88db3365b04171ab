"""The named laws: values worked out by hand, and what they are found from."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.laws.fit import fit_law
from analysis.laws.forms import LAWS, law
from trials.errors import UserError

# Parameters, an input, and the value there by hand.
BY_HAND = [
    ("power", (3.0, -0.5), (4.0,), 1.5), ("power_offset", (2.0, 3.0, 2.0), (2.0,), 14.0),
    ("saturating", (2.0, 101.0), (101.0,), 1.0), ("saturating", (2.0, 3.0), (1.0,), 0.5),
    ("surge", (5.0, 64.0), (64.0,), 5.0), ("surge", (5.0, 4.0), (1.0,), 4.0), ("surge", (5.0, 4.0), (16.0,), 4.0),
    ("log", (1.0, 2.0), (math.e,), 3.0), ("linear", (1.0, -2.0), (3.0,), -5.0), ("constant", (7.0,), (9.0,), 7.0),
    ("power2", (2.0, 0.5, -1.0), (9.0, 4.0), 1.5)]
RANGES = [("power", (3.0, -0.4)), ("power", (1e-8, 2.5)), ("power_offset", (0.5, 2.0, -0.5)),
          ("power_offset", (1.7, 400.0, -0.3)), ("power_offset", (2.0, 0.01, 1.5)), ("saturating", (2.0, 101.0)),
          ("saturating", (1e-3, 3.0)), ("surge", (0.02, 64.0)), ("surge", (9.0, 3000.0)), ("log", (-3.0, 0.2)),
          ("linear", (5.0, -0.01)), ("constant", (0.3,)), ("power2", (0.2, 0.5, -1.5))]


@pytest.mark.parametrize("name, parameters, x, y", BY_HAND)
def test_values(name, parameters, x, y):
    assert law(name).predict(np.array(parameters), np.array([x]))[0] == pytest.approx(y, rel=1e-12)


def test_every_law_has_a_value_here():
    assert {name for name, *_ in BY_HAND} == {name for name, _ in RANGES} == set(LAWS)
    for name, each in LAWS.items():
        assert each.name == name and len(each.positive) == len(each.parameters) and len(each.source) > 20


@pytest.mark.parametrize("name, truth", RANGES)
def test_the_truth_is_found_where_there_is_no_noise(name, truth):
    chosen, rng = law(name), np.random.default_rng(0)
    columns = [f"x{place}" for place in range(chosen.inputs)]
    x = np.column_stack([rng.permutation(np.geomspace(1, 4096, 13)) for _ in columns])
    data = pd.DataFrame(x, columns=columns).assign(y=chosen.predict(np.array(truth), x))
    fit = fit_law(data, name, columns, "y")
    np.testing.assert_allclose(fit.parameters, truth, rtol=1e-5)
    assert fit.sigma < 1e-6 and list(fit.estimates) == list(chosen.parameters)
    np.testing.assert_allclose(fit.predict(x), data["y"], rtol=1e-6)


@pytest.mark.parametrize("name, truth", [("saturating", (2.0, 101.0)), ("surge", (0.02, 64.0))])
def test_reciprocals_start_at_the_truth(name, truth):
    x = np.geomspace(1, 1000, 9)[:, None]
    np.testing.assert_allclose(law(name).start(x, law(name).predict(np.array(truth), x))[0], truth, rtol=1e-6)


def test_an_unknown_law():
    with pytest.raises(UserError, match="no law called 'saturated'; did you mean 'saturating'"):
        law("saturated")
