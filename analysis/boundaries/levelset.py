"""A boundary without a formula: the level set of a Gaussian process, to see where a logistic one misleads.

The share of ones at each point, as empirical logits ln((k + 1/2) / (n - k + 1/2)) with variance 1/(k + 1/2) +
1/(n - k + 1/2) (Cox 1970), is smoothed by Gaussian process regression (Rasmussen & Williams, "Gaussian Processes for
Machine Learning", 2006): a plane plus a Matern 5/2 kernel with a length for each axis, the lengths by marginal
likelihood.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

from analysis.boundaries.boundary import Boundary
from analysis.boundaries.surface import coordinates
from analysis.estimates import Estimate
from trials.errors import UserError

Array = npt.NDArray[np.float64]
MOST_POINTS = 400  # a fit takes their cube: beyond, points are merged on a grid
ACROSS, ALONG = 201, 25  # where the surface is looked at
DISAGREES = 3.0  # standard errors


@dataclass(frozen=True)
class Agreement:
    """How far a logistic boundary lies from the level set: ``distance`` in v where it is most standard errors of both,
    ``at`` x; the same in transition ``widths`` and in half-widths of the boundary's band (``bands``); ``errors``, how
    many standard errors that is. ``misleads`` where it is more than DISAGREES, and where the level set crosses some x
    more than once; ``because`` says it in words."""

    distance: float
    at: float
    widths: float
    bands: float
    errors: float
    misleads: bool
    because: str


def level_set(boundary: Boundary) -> pd.DataFrame:
    """Where the smoothed probability is 1/2: a row for each of ALONG values of x, evenly over the axis.

    Columns: the boundary's x and y (NaN where the level set does not cross the swept y just once), ``error`` (its
    standard error in v) and ``crossings``. Raises UserError where there is no boundary.
    """
    if boundary.kind == "none":
        raise UserError(f"no level set of {boundary.outcome} in {boundary.x} and {boundary.y}: {boundary.because}")
    points, ones, trials = _points(boundary)
    center, scale = points.mean(axis=0), points.std(axis=0)
    logits = np.log((ones + 0.5) / (trials - ones + 0.5))
    process = GaussianProcessRegressor(
        ConstantKernel(10.0, (1e-2, 1e3)) * Matern([1.0, 1.0], (0.2, 20.0), nu=2.5) + DotProduct(1.0, (1e-2, 1e2)),
        alpha=1.0 / (ones + 0.5) + 1.0 / (trials - ones + 0.5))
    with warnings.catch_warnings():  # a length at its bound is one that the data do not tell
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit((points - center) / scale, logits)
    u = np.linspace(*_range(points[:, 0]), ALONG)
    v = np.linspace(*_range(points[:, 1]), ACROSS)
    grid = np.stack(np.meshgrid(u, v, indexing="ij"), axis=-1)
    mean, error = (each.reshape(ALONG, ACROSS) for each in process.predict(
        ((grid - center) / scale).reshape(-1, 2), return_std=True))
    above = mean > 0
    crossings = (above[:, 1:] != above[:, :-1]).sum(axis=1)
    before = (above[:, 1:] != above[:, :-1]).argmax(axis=1)
    row = np.arange(ALONG)
    here, there = mean[row, before], mean[row, before + 1]
    once = crossings == 1
    rise = np.where(once, there - here, 1.0)
    place = np.where(once, v[before] - here / rise * (v[1] - v[0]), np.nan)
    uncertain = np.where(once, error[row, before] / np.abs(rise) * (v[1] - v[0]), np.nan)
    x, y = (np.exp(each) if logarithmic else each for each, logarithmic in zip((u, place), boundary.log, strict=True))
    return pd.DataFrame({boundary.x: x, boundary.y: y, "error": uncertain, "crossings": crossings})


def agreement(boundary: Boundary) -> Agreement:
    """Hold a logistic boundary against the level set. Raises UserError where there is none, or where they never meet in
    what was swept."""
    found = level_set(boundary)
    x = np.clip(found[boundary.x], boundary.data[boundary.x].min(), boundary.data[boundary.x].max())
    folded = found["crossings"] > 1
    line, (low, high) = boundary.line(x), boundary.band(x)
    values = pd.DataFrame({"line": line, "low": low, "high": high, "set": found[boundary.y]})
    if boundary.log[1]:
        values = np.log(values)
    _, rows = _range(coordinates(boundary.data, (boundary.y,), boundary.log[1:])[:, 0]), None
    raise NotImplementedError
