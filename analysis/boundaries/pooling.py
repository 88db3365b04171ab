"""Whether a boundary over two axes depends on a further one that its rows pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.boundaries.boundary import Boundary
from analysis.boundaries.covariates import are_independent, effects
from analysis.boundaries.outcomes import coordinates
from analysis.boundaries.surface import beside, surface_of

MOST_CATEGORIES = 20  # beside the first: names of which there are more are no axis


def pooled_axes(data: pd.DataFrame, boundary: Boundary, axes: Sequence[str]) -> dict[str, float]:
    """The p-value of "it does not move the boundary" for each of the ``axes`` that varies in ``data``, the rows that
    the boundary was fitted to: the likelihood ratio of its main effect beside x, y and what was given. Axes that
    follow from these are left out: they are not pooled."""
    kept = ~boundary.data["censored"].to_numpy()
    used, rows = boundary.data[kept], data[kept]
    given = beside(boundary)[0]
    pair = (boundary.x, boundary.y)
    accounted = (*pair, *boundary.given)
    points = coordinates(used, pair, boundary.log)
    known = np.column_stack([points, *([points[:, 0] ** 2] if boundary.degree > 1 else []), given])
    found = {}
    for axis in axes:
        if axis in accounted or any(_follows(rows[axis], used[name]) for name in accounted):
            continue
        columns = effects(rows[axis])
        if 0 < columns.shape[1] <= MOST_CATEGORIES and are_independent(np.column_stack([known, columns])):
            surface = surface_of(used, boundary.outcome, pair, boundary.log, boundary.degree,
                                 np.column_stack([given, columns]))
            width = len(surface.fit.coefficients)
            found[axis] = surface.fit.joint_test(range(width - columns.shape[1], width))
    return found


def _follows(axis: pd.Series, other: pd.Series) -> bool:
    """Whether each value of the other, of which there are several rows, has one of the axis."""
    per_value = axis.groupby(other.to_numpy(), dropna=False)
    return bool((per_value.size() > 1).all() and (per_value.nunique(dropna=False) == 1).all())
