"""Rows of trials as points, ones and trials, and whether these depend on the axes at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.boundaries.firth import firth
from analysis.figures.style import is_numeric
from trials.errors import UserError, no_column

Array = npt.NDArray[np.float64]
LEAST_POINTS = 6  # distinct (x, y): twice the coefficients of a straight boundary
SHUFFLES = 999


def outcome_table(data: pd.DataFrame, outcome: str, axes: Sequence[str], cluster: str | None, censored: str | None,
                  others: Sequence[str] = ()) -> pd.DataFrame:
    """The columns of ``axes`` and ``others``, ``outcome`` as 0 and 1 (NaN where censored), ``cluster`` and
    ``censored``, checked."""
    place = f"boundary of {outcome}"
    for name in others:
        if name in (outcome, *axes):
            raise UserError(f"{place}: {name} cannot be given as well; leave it out of given")
    for name in (outcome, *axes, *others, *(extra for extra in (cluster, censored) if extra)):
        if name not in data:
            raise no_column(place, name, data.columns)
    data = data.reset_index(drop=True)  # an index may repeat itself, as that of tables put together
    left_out = data[censored].astype(bool) if censored else pd.Series(False, data.index)
    table = pd.DataFrame({name: data[name] for name in (*axes, *others)})
    for name in axes:
        if not is_numeric(data[name]) or not np.isfinite(data[name].astype(float)).all():
            raise UserError(f"{place}: {name} must be finite numbers; leave out the rows where it is not")
    seen = data[outcome][~left_out]
    if not seen.isin([0, 1]).all():
        raise UserError(f"{place}: {outcome} must be 0 or 1, but has {seen[~seen.isin([0, 1])].iloc[0]}; "
                        "make a column of it that says yes or no, and call the rows censored that do not")
    points = table.groupby(list(axes)).ngroup()
    table = table.assign(**{outcome: seen.astype(float)}, cluster=data[cluster] if cluster else points,
                         censored=left_out)
    if points[~left_out].nunique() < LEAST_POINTS:
        raise UserError(f"{place}: {points[~left_out].nunique()} points of {' and '.join(axes)} that are not censored; "
                        f"it takes {LEAST_POINTS}")
    return table


def coordinates(table: pd.DataFrame, axes: Sequence[str], log: Sequence[bool]) -> Array:
    """The columns of ``axes``, (n, axes), as logarithms where they are ``log``."""
    for name, logarithmic in zip(axes, log, strict=True):
        if logarithmic and not (table[name] > 0).all():
            raise UserError(f"{name} = {table[name].min():g} has no logarithm; leave it out, or take {name} as it is")
    return np.column_stack([np.log(table[name].astype(float)) if logarithmic else table[name].astype(float)
                            for name, logarithmic in zip(axes, log, strict=True)])


def tally(values: Array, outcome: pd.Series, cluster: pd.Series) -> tuple[Array, Array, Array, npt.NDArray[np.intp]]:
    """Rows at one point, values (n, k), and of one cluster as one, so that more seeds cost nothing: the points (m, k),
    ones (m,) of trials (m,), and codes of clusters (m,)."""
    rows = np.column_stack([values, pd.factorize(cluster)[0]])
    points, place = np.unique(rows, axis=0, return_inverse=True)
    place = place.ravel()
    ones = np.asarray(np.bincount(place, outcome.to_numpy(float)), float)
    return points[:, :-1], ones, np.bincount(place).astype(float), points[:, -1].astype(np.intp)


def dependence(used: pd.DataFrame, outcome: str, axes: tuple[str, str], log: tuple[bool, bool], others: Array,
               rng: np.random.Generator) -> float:
    """p-value of "no dependence on either axis": how often the score statistic of shuffled points is as large.

    A point keeps its trials, so that what they share does not count as evidence (Fisher's permutation test).
    """
    points = used.assign(residual=_residual(used, outcome, others), size=1.0, u=0.0, v=0.0)
    points[["u", "v"]] = coordinates(used, axes, log)
    points = points.groupby(["u", "v"])[["residual", "size"]].sum().reset_index()
    z = points[["u", "v"]].to_numpy()
    size = points["size"].to_numpy()
    z = z - size @ z / size.sum()
    z = z @ np.linalg.inv(np.linalg.cholesky((z.T * size) @ z)).T  # both axes count the same, whatever their units
    residual = points["residual"].to_numpy()
    statistic = ((residual @ z) ** 2).sum()
    rows = np.tile(residual, (SHUFFLES // 9, 1))  # a ninth at a time: there may be many points
    shuffled = [((rng.permuted(rows, axis=1) @ z) ** 2).sum(axis=1) for _ in range(9)]
    return float((1 + np.sum(np.array(shuffled) >= statistic * (1 - 1e-9))) / (1 + SHUFFLES))


def dependence_of_rows(used: pd.DataFrame, outcome: str, axes: tuple[str, str], log: tuple[bool, bool], others: Array,
                       rng: np.random.Generator) -> float:
    """p-value of "each value of either axis has chance of its own, in no order": how often the scores of both axes are
    as large, together, when the values of each are shuffled and keep their trials. Scores are squared over what
    shuffling makes them. It asks more of a grid than ``dependence``: a step between 4 and 4 values is no surprise.
    """
    residual = _residual(used, outcome, others)
    u, v = (coordinates(used, axes, log) - coordinates(used, axes, log).mean(axis=0)).T
    statistic, shuffled = 0.0, np.zeros(SHUFFLES)
    for axis in (u, v - u * (u @ v) / (u @ u)):  # what u does not tell of v: all of it on a grid
        values, place = np.unique(np.round(axis / axis.std(), 9), return_inverse=True)
        sums = np.bincount(place, residual)
        scores = np.concatenate([rng.permuted(np.tile(sums, (SHUFFLES // 9, 1)), axis=1) @ values for _ in range(9)])
        if spread := float(np.mean(scores**2)):
            statistic, shuffled = statistic + float(sums @ values) ** 2 / spread, shuffled + scores**2 / spread
    return float((1 + np.sum(shuffled >= statistic * (1 - 1e-9))) / (1 + SHUFFLES))


def _residual(used: pd.DataFrame, outcome: str, others: Array) -> Array:
    """Outcomes less what they are expected to be whatever x and y, (n,)."""
    ones = used[outcome].to_numpy(float)
    if not others.size or ones.min() == ones.max():
        return np.asarray(ones - ones.mean())
    return np.asarray(ones - firth(np.column_stack([np.ones((len(used), 1)), others]), ones).chances)
