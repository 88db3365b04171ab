"""Finite-size scaling: planted transitions sharpen with size, crossovers do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.boundaries.finite_size import fit_finite_size
from trials.errors import UserError


def sweep(exponent, common=0.0, steepness=15.0, seeds=5, seed=0, critical=0.47):
    """Grokked or not where logit p = common + steepness (fraction - critical) (width / 64)^exponent."""
    rng = np.random.default_rng(seed)
    width, fraction = (np.repeat(each.ravel(), seeds) for each in
                       np.meshgrid([16.0, 32.0, 64.0, 128.0, 256.0], np.linspace(0.1, 0.9, 13)))
    logits = common + steepness * (fraction - critical) * (width / 64) ** exponent
    return pd.DataFrame({"fraction": fraction, "width": width,
                         "grokked": rng.random(len(width)) < 1 / (1 + np.exp(-logits))})


def fit(data, **more):
    return fit_finite_size(data, "grokked", "fraction", "width", **more)


@pytest.mark.parametrize("common", [0.0, 1.5])
def test_a_transition_sharpens_with_size(common):
    """Wherever the curves cross, at 1/2 or above."""
    found = fit(sweep(0.7, common))
    assert found.kind == "transition" and found.n == 325
    assert found.estimates["exponent"].covers(0.7) and found.estimates["exponent"].low > 0.2
    assert found.estimates["critical"].covers(0.47)
    assert found.estimates["critical"].high - found.estimates["critical"].low < 0.25


def test_a_crossover_does_not():
    found = fit(sweep(0.0, seed=1))
    assert found.kind == "crossover" and found.estimates["exponent"].covers(0.0)
    assert found.estimates["critical"].high == np.inf


def test_one_that_widens_is_no_transition():
    found = fit(sweep(-0.7, seed=2))
    assert found.kind == "crossover" and found.estimates["exponent"].high < 0


def test_intervals_hold_the_truth():
    """8 sweeps, of which 95% intervals miss at most 2 but once in 170 times."""
    held = []
    for seed in range(8):
        estimates = fit(sweep(0.5, 0.5, seed=seed, seeds=3)).estimates
        held.append([estimates["exponent"].covers(0.5), estimates["critical"].covers(0.47)])
    assert (np.sum(held, axis=0) >= 6).all()


def test_logarithms_of_the_axis():
    data = sweep(0.7)
    data["lr"] = np.exp(10 * data["fraction"])
    found = fit_finite_size(data, "grokked", "lr", "width")
    plain = fit(data)
    assert found.estimates["critical"].value == pytest.approx(np.exp(10 * plain.estimates["critical"].value), rel=1e-2)
    assert found.estimates["exponent"].value == pytest.approx(plain.estimates["exponent"].value, rel=1e-2)


@pytest.mark.parametrize("outcome", [lambda n: np.ones(n), lambda n: np.random.default_rng(0).random(n) < 0.5])
def test_nothing_that_depends_on_the_axis(outcome):
    data = sweep(0.7)
    found = fit(data.assign(grokked=outcome(len(data))))
    assert found.kind == "none" and np.isnan(found.estimates["exponent"].value)


def test_censored_rows_are_left_out():
    data = sweep(0.7).assign(stopped=lambda rows: rows["fraction"] < 0.15)
    found = fit(data.assign(grokked=data["grokked"].where(~data["stopped"])), censored="stopped")
    assert found.estimates == fit(data[~data["stopped"]]).estimates


@pytest.mark.parametrize(("change", "message"), [
    (lambda data: data[data["width"] < 64], "width has 2 values; it takes 3"),
    (lambda data: data.assign(width=data["width"] - 16), "has no logarithm"),
    (lambda data: data.assign(fraction=0.5), "5 points of fraction and width"),
    (lambda data: data.drop(columns="grokked"), "no column called 'grokked'"),
])
def test_what_cannot_be_fitted_is_said(change, message):
    with pytest.raises(UserError, match=message):
        fit(change(sweep(0.7)))
