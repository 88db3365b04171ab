"""Level sets of a Gaussian process: where the boundary was planted, and what they say of logistic ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.boundaries.levelset import MOST_POINTS, agreement, level_set
from analysis.boundaries.surface import fit_boundary
from trials.errors import UserError


def fitted(curve, points, k=6.0, seed=0, **more):
    """A boundary fitted to trials at points (u, v), diverged where v is above the curve."""
    rng = np.random.default_rng(seed)
    u, v = points
    data = pd.DataFrame({"batch_size": 64 * np.exp(u), "lr": 0.1 * np.exp(v),
                         "diverged": rng.random(len(u)) < 1 / (1 + np.exp(-k * (v - curve(u))))})
    return fit_boundary(data, "diverged", "batch_size", "lr", **more)


def grid(size=12, seeds=3):
    ticks = (np.arange(size) - (size - 1) / 2) * np.log(2)
    return tuple(np.repeat(each.ravel(), seeds) for each in np.meshgrid(ticks, ticks, indexing="ij"))


def tent(u):
    return 1.0 - np.abs(u)


@pytest.mark.parametrize("curve", [lambda u: 0.5 * u, tent])
def test_the_level_set_is_where_the_boundary_was_planted(curve):
    found = level_set(fitted(curve, grid()))
    inside = found[found["crossings"] == 1]
    assert len(inside) >= 20
    away = np.log(inside["lr"] / 0.1) - curve(np.log(inside["batch_size"] / 64))
    assert away.abs().max() < 0.5 and away.abs().median() < 0.15
    smooth = np.log(inside["batch_size"] / 64).abs() > 0.7  # a kink is rounded off
    assert (away.abs() < 3 * inside["error"])[smooth].all()


def test_a_line_through_a_tent_misleads():
    found = agreement(fitted(tent, grid(), curved=False))
    assert found.misleads and found.distance > 1.0 and found.bands > 1.0
    assert found.widths > 0.2 and 1 < found.at < 4096


@pytest.mark.parametrize("k", [2.0, 6.0, 20.0])
def test_a_line_along_a_line_does_not_mislead(k):
    found = agreement(fitted(lambda u: 0.5 * u, grid(), k, seed=int(k)))
    assert not found.misleads and found.distance < 0.7
    assert "ln lr" in found.because


def test_many_points_are_merged():
    boundary = fitted(lambda u: 0.5 * u, np.random.default_rng(1).uniform(-4, 4, (2, 3000)))
    assert boundary.n > MOST_POINTS
    inside = level_set(boundary).dropna()
    away = np.log(inside["lr"] / 0.1) - 0.5 * np.log(inside["batch_size"] / 64)
    assert len(inside) == 25 and away.abs().max() < 0.4


def test_no_boundary_has_no_level_set():
    with pytest.raises(UserError, match="no level set of diverged"):
        level_set(fitted(lambda u: u + 100.0, grid()))
