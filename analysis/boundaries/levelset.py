"""A boundary without a formula: the level set of a Gaussian process, to see where a logistic one misleads.

The logit of the probability is a Gaussian process over both axes (Rasmussen & Williams, "Gaussian Processes for Machine
Learning", 2006): a plane plus a Matern 5/2 kernel with a length for each axis. It is fitted by penalized
quasi-likelihood (Breslow & Clayton, "Approximate inference in generalized linear mixed models", JASA 1993): Gaussian
process regression of the working logits f + (ones - n p) / w with variance 1 / w, w = n p (1 - p), again and again.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

from analysis.boundaries.boundary import Boundary
from analysis.boundaries.outcomes import coordinates
from analysis.estimates import LEVEL
from trials.errors import UserError

Array = npt.NDArray[np.float64]
MOST_POINTS = 400  # a fit takes their cube: beyond, points are merged on a grid
ACROSS, ALONG = 201, 25  # where the surface is looked at
OPTIMIZERS = (None,) * 6 + ("fmin_l_bfgs_b",) * 2  # a round each: lengths are worth fitting once the logits settle
DISAGREES = 2.5  # standard errors, at the worst of all places


@dataclass(frozen=True)
class Agreement:
    """How far a logistic boundary lies from the level set, in v, where it is farthest: ``distance`` at this x (``at``),
    and as a share of the transition's width (``widths``) and of half the boundary's band (``bands``). ``misleads``
    where it is somewhere more than DISAGREES standard errors of both, and so no chance; ``because`` says it in words.
    """

    distance: float
    at: float
    widths: float
    bands: float
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
    z = (points - center) / scale
    logits = np.log((ones + 0.5) / (trials - ones + 0.5))
    kernel = (ConstantKernel(10.0, (1e-2, 1e3)) * Matern([1.0, 1.0], (0.2, 20.0), nu=2.5)
              + ConstantKernel(100.0, (1e-2, 1e4)) * DotProduct(1.0, (1e-2, 1e2)))
    with warnings.catch_warnings():  # a length at its bound is one that the data do not tell
        warnings.simplefilter("ignore", ConvergenceWarning)
        for optimizer in OPTIMIZERS:
            p = 1.0 / (1.0 + np.exp(-logits))
            weights = np.maximum(trials * p * (1.0 - p), 1e-3)
            process = GaussianProcessRegressor(kernel, alpha=1.0 / weights, optimizer=optimizer)
            process.fit(z, logits + (ones - trials * p) / weights)
            logits = process.predict(z)
    u = np.linspace(points[:, 0].min(), points[:, 0].max(), ALONG)
    v = np.linspace(points[:, 1].min(), points[:, 1].max(), ACROSS)
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
    """Hold a logistic boundary against the level set, where both lie in what was swept (all NaN where they never do).

    Raises UserError where there is no boundary.
    """
    found = level_set(boundary)
    x = found[boundary.x].clip(boundary.data[boundary.x].min(), boundary.data[boundary.x].max())
    low, high = boundary.band(x)
    lines = pd.DataFrame({"line": boundary.line(x), "low": low, "high": high, "level_set": found[boundary.y]})
    swept = boundary.data[boundary.y]
    inside = lines["line"].between(swept.min(), swept.max()) & lines["level_set"].notna()
    if not inside.any():
        return Agreement(np.nan, np.nan, np.nan, np.nan, False, "the boundary and the level set do not meet what was "
                         "swept at the same place")
    v = np.log(lines[inside]) if boundary.log[1] else lines[inside]
    distance = (v["line"] - v["level_set"]).abs()
    half = (v["high"] - v["low"]) / 2
    errors = float((distance / np.hypot(half / norm.isf((1 - LEVEL) / 2), found["error"][inside])).max())
    far = distance.idxmax()
    said = f"at most {distance[far]:.2g} in {'ln ' if boundary.log[1] else ''}{boundary.y} from the level set of a " \
           f"Gaussian process, nowhere more than {errors:.1f} standard errors"
    return Agreement(float(distance[far]), float(x[far]), float(distance[far] / boundary.estimates["width"].value),
                     float(distance[far] / half[far]), errors > DISAGREES, said)


def _points(boundary: Boundary) -> tuple[Array, Array, Array]:
    """u and v of distinct points (n, 2), and ones of trials (n,) at each; merged on a grid if they are too many. Points
    are moved in v by what the axes given move the boundary there, the other way."""
    used = boundary.data[~boundary.data["censored"]]
    values = coordinates(used, (boundary.x, boundary.y), boundary.log)
    if boundary.given and np.isfinite(boundary.estimates["slope"].low):
        values[:, 1] += used["offset"].to_numpy() / boundary.coefficients[2]
    rows = pd.DataFrame({"u": values[:, 0], "v": values[:, 1], "outcome": used[boundary.outcome].to_numpy()})
    keys = [rows["u"], rows["v"]]
    if len(rows[["u", "v"]].drop_duplicates()) > MOST_POINTS:
        keys = [pd.cut(rows[name], int(MOST_POINTS**0.5), labels=False) for name in ("u", "v")]
    points = rows.groupby([key.to_numpy() for key in keys]).agg(
        u=("u", "mean"), v=("v", "mean"), ones=("outcome", "sum"), trials=("outcome", "size"))
    return points[["u", "v"]].to_numpy(), points["ones"].to_numpy(float), points["trials"].to_numpy(float)
