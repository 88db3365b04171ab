from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted import layer_of, randn
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from trials.measurements import dimension


def plane(d: int, n: int = 1000, ambient: int = 20) -> Tensor:
    """A uniform d-dimensional torus-free cube, turned into more dimensions."""
    x = torch.rand(n, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    turn, _ = torch.linalg.qr(randn(ambient, ambient))
    return 2.0 + x @ turn[:d]


def sphere(d: int, n: int = 1000) -> Tensor:
    """The d-dimensional sphere in d + 1 dimensions."""
    x = randn(n, d + 1, seed=d)
    return x / x.norm(dim=1, keepdim=True)


def swiss_roll(n: int = 1000) -> Tensor:
    t = 1.5 * np.pi * (1 + 2 * torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    h = 21 * torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.stack([t * t.cos(), h, t * t.sin()], 1)


# The standard deviation of TwoNN is about d / sqrt(N) = 3% here; edges take some per cent off a cube's dimension.
@pytest.mark.parametrize(("points", "d"), [
    (plane(1), 1), (plane(2), 2), (plane(4), 4), (sphere(2), 2), (sphere(5), 5), (swiss_roll(), 2)])
def test_planted_manifolds(points: Tensor, d: int) -> None:
    found = dimension.metrics(layer_of(points))
    assert float(found["twonn_dimension"]) == pytest.approx(d, rel=0.12)
    assert float(found["local_dimension"]) == pytest.approx(d, rel=0.12)


def test_against_the_definitions_with_sklearns_neighbours() -> None:
    x = randn(200, 5)
    distances = NearestNeighbors(n_neighbors=21).fit(x.numpy()).kneighbors(x.numpy())[0][:, 1:]
    mu = np.sort(distances[:, 1] / distances[:, 0])[:180]
    slope = np.linalg.lstsq(np.log(mu)[:, None], -np.log(1 - np.arange(1, 181) / 200), rcond=None)[0][0]
    inverses = [np.mean([np.log(row[-1] / t) for t in row[:-1]]) for row in distances]
    found = dimension.metrics(layer_of(x))
    assert float(found["twonn_dimension"]) == pytest.approx(slope, rel=1e-8)
    assert float(found["local_dimension"]) == pytest.approx(1 / np.mean(inverses), rel=1e-8)


def test_copies_of_a_point_count_once() -> None:
    x = plane(2, n=200)
    single, twice = dimension.metrics(layer_of(x)), dimension.metrics(layer_of(torch.cat([x, x[:150]])))
    for name in single:
        assert float(twice[name]) == pytest.approx(float(single[name]), rel=1e-6)


def test_too_few_distinct_points() -> None:
    few = randn(dimension.NEIGHBOURS, 3)
    for x in (few, few.repeat(10, 1)):
        assert all(math.isnan(float(value)) for value in dimension.metrics(layer_of(x)).values())
    enough = dimension.metrics(layer_of(randn(dimension.NEIGHBOURS + 1, 3)))
    assert all(float(value) > 0 for value in enough.values())


def test_scale_does_not_matter() -> None:
    x = plane(3, n=300)
    small, large = dimension.metrics(layer_of(1e-6 * x)), dimension.metrics(layer_of(1e6 * x))
    assert float(small["twonn_dimension"]) == pytest.approx(float(large["twonn_dimension"]), rel=1e-6)
