"""Covariates of a boundary: further axes, which are held at their middle, as columns of a logistic regression.

Main effects alone: each moves the boundary, and none turns it (Agresti, "Categorical Data Analysis", 2013, 5.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.figures.style import is_numeric

Array = npt.NDArray[np.float64]


def effects(values: pd.Series) -> Array:
    """The columns (n, k) of one axis, each with mean 0: the number (its logarithm where all are above 0) over its
    standard deviation, or a column for each category but one; and one more where values are missing."""
    missing = values.isna().to_numpy()
    if is_numeric(values):
        numbers = values.astype(float).to_numpy()
        missing = ~np.isfinite(numbers)
        numbers = np.log(numbers) if (numbers[~missing] > 0).all() else numbers
        columns = np.where(missing, numbers[~missing].mean() if not missing.all() else 0.0, numbers)[:, None]
    else:
        columns = pd.get_dummies(values.astype(str)).to_numpy(float)[:, 1:]
    if missing.any() and is_numeric(values):
        columns = np.column_stack([columns, missing])
    columns = columns - columns.mean(axis=0)
    spread = columns.std(axis=0)
    return np.asarray(columns[:, spread > 1e-12] / spread[spread > 1e-12])


def covariates(table: pd.DataFrame, names: Sequence[str]) -> Array:
    """The columns of several axes, (n, k); (n, 0) without any."""
    return np.column_stack([np.empty((len(table), 0)), *(effects(table[name]) for name in names)])


def are_independent(columns: Array) -> bool:
    """Whether the columns (n, k), and a constant, say each something that the others do not."""
    design = np.column_stack([np.ones(len(columns)), columns])
    return bool(np.linalg.matrix_rank(design) == design.shape[1])
