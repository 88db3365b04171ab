"""Further axes that move a boundary: given, they are held at their middle; pooled, it is said whether they matter."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.boundaries.outcomes import dependence_of_rows
from analysis.boundaries.pooling import pooled_axes
from analysis.boundaries.surface import fit_boundary
from trials.errors import UserError


def search(n=500, moved=1.0, seed=0):
    """A random search: the boundary, of slope 1, moves with ln weight_decay, which is larger where u is."""
    rng = np.random.default_rng(seed)
    u, v, w = rng.uniform(-3, 3, (3, n))
    w = w + 0.5 * u
    kind = rng.choice(["a", "b", "c"], n)
    logits = 3.0 * (v - u - 0.1 - moved * w - (kind == "c"))
    return pd.DataFrame({"batch_size": 64 * np.exp(u), "lr": 0.1 * np.exp(v), "weight_decay": 0.01 * np.exp(w),
                         "kind": kind, "dropout": rng.random(n), "half": 32 * np.exp(u),
                         "diverged": rng.random(n) < 1 / (1 + np.exp(-logits))})


def fit(data, **more):
    return fit_boundary(data, "diverged", "batch_size", "lr", **more)


def test_given_axes_are_held_at_their_middle():
    data = search()
    found = fit(data, given=["weight_decay", "kind"])
    assert found.given == ("weight_decay", "kind") and "at the middle of weight_decay and kind" in found.method
    share, u = (data["kind"] == "c").mean(), np.log(data["batch_size"] / 64).mean()
    middle = 0.1 * np.exp(0.1 + u + np.log(data["weight_decay"] / 0.01).mean() + share)
    assert found.estimates["slope"].covers(1.0) and found.estimates["location"].covers(middle)
    assert found.estimates["width"].covers(2 * np.log(9) / 3)
    low, high = found.band([64 * np.exp(u)])
    assert low < middle < high
    assert not fit(data).estimates["slope"].covers(1.0)


def test_axes_that_are_pooled_are_tested():
    data = search()
    p = pooled_axes(data, fit(data), ["weight_decay", "kind", "dropout", "half", "lr"])
    assert list(p) == ["weight_decay", "kind", "dropout"]  # the others are those of the boundary
    assert p["weight_decay"] < 1e-6 and p["dropout"] > 0.001
    assert list(pooled_axes(data, fit(data, given=["weight_decay"]), ["weight_decay", "kind"])) == ["kind"]


def test_an_axis_that_does_nothing_seldom_seems_to_matter():
    """5% of 20: more than 5 come once in 3,000 times."""
    alarms = sum(pooled_axes(data, fit(data, curved=False), ["weight_decay"])["weight_decay"] < 0.05
                 for data in (search(120, 0.0, seed) for seed in range(20)))
    assert alarms <= 5


def test_values_that_are_missing_count_as_one():
    data = search()
    data["momentum"] = np.where(data["kind"] == "c", np.nan, 0.9)
    assert fit(data, given=["momentum", "weight_decay"]).estimates["slope"].covers(1.0)


@pytest.mark.parametrize(("given", "message"), [
    (["half"], "follows from batch_size and lr"), (["lr"], "lr cannot be given as well"),
    (["weight_decai"], "did you mean 'weight_decay'")])
def test_what_cannot_be_given_is_said(given, message):
    with pytest.raises(UserError, match=message):
        fit(search(), given=given)


def test_chance_that_the_trials_at_one_x_share_is_no_evidence():
    """5% of 100: more than 13 come once in 1,500 times."""
    rng = np.random.default_rng(0)
    u, v = (each.ravel() for each in np.meshgrid(np.arange(10.0), np.arange(10.0), indexing="ij"))
    found = 0
    for _ in range(100):
        chance = 1 / (1 + np.exp(-rng.normal(size=10)))[u.astype(int)]
        rows = pd.DataFrame({"x": u, "y": v, "diverged": (rng.random(100) < chance).astype(float)})
        found += dependence_of_rows(rows, "diverged", ("x", "y"), (False, False), np.empty((100, 0)), rng) < 0.05
    assert found <= 13
