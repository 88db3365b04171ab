"""The best, or the largest stable, value of one axis as a function of another: found for each, then a law of them all.

The law carries the uncertainty of what it is fitted to: its intervals rest on the greater of two variances, that of the
scatter of the optima about the law and that of the errors with which each was found. Neither does alone: a few optima
may lie on a line by chance, and largest stable values often do by the grid; errors know nothing of a law that is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.special import stdtrit

from analysis.estimates import LEVEL
from analysis.laws import forms
from analysis.laws.brackets import through
from analysis.laws.fit import fit_law, numbers
from analysis.laws.law import Law, LawFit
from analysis.laws.window import FEWEST, Window, degree_of, nowhere
from trials.errors import UserError, no_column


def optimum(data: pd.DataFrame, axis: str, y: str, by: str, *, mode: Literal["min", "max"] = "min",
            cluster: str | None = None, crossed: str | None = None, level: float = LEVEL) -> pd.DataFrame:
    """Where ``y`` is least (greatest for "max") over ``axis``, for each value of ``by`` and, where that is given, of
    ``crossed``, such as the seed: a row each, ascending.

    From a parabola in ln axis, of ln y if all y are positive, through the trials at the best value on the grid (by
    means smoothed 1:2:1) and at its two neighbours on either side; from a cubic or quartic where, over all values of
    ``by`` (Fisher's combined test), the next power is significant. The interval has the places where the slope may be 0
    (Fieller 1954); an end is 0 or infinite where that is not within the neighbours. A skewness that cannot be told from
    chance moves the optimum, by up to a third of the grid's step, for all of ``by`` alike. Rows with the same value in
    ``cluster`` share their chance. Values of the axis where a trial has no finite y, for it diverged, are no optima; at
    their border the optimum is the best value on the grid, and its interval reaches to the neighbours.

    Columns: ``by``, ``axis`` (the optimum; NaN where the curve has none), ``low``, ``high``, ``se`` (of its logarithm)
    and its ``dof``, ``rows`` fitted, ``at_edge``: the best is the first or last value of the grid, or beyond. Raises
    UserError for missing columns, no numbers, an axis not above 0, or fewer than 4 values of it.
    """
    data, keys = _keyed(data, by, crossed, "optimum")
    rows, codes = numbers(data, (by, axis, y), "optimum", cluster)
    _check_positive(rows, axis, "optimum")
    rows = rows.assign(cluster=np.arange(len(rows)) if codes is None else codes,
                       goal=(np.log(rows[y]) if (rows[y] > 0).all() else rows[y]) * (1 if mode == "min" else -1))
    tried = numbers(data, (by, axis), "optimum")[0]
    rows, tried = (each.assign(**data.loc[each.index, keys]) for each in (rows, tried))
    lost = pd.MultiIndex.from_frame(tried.loc[tried.index.difference(rows.index), [*keys, axis]])
    rows = rows[~pd.MultiIndex.from_frame(rows[[*keys, axis]]).isin(lost)]
    if rows.empty:
        raise UserError(f"optimum: at every {axis} some trial has no finite {y}")
    few = rows.groupby(by)[axis].nunique()
    if (few < FEWEST).any():
        raise UserError(f"optimum: {few.min()} values of {axis} at {by} = {few.idxmin():g} with a finite {y} in all "
                        f"trials; it takes {FEWEST}, better 8")
    every = {key: np.sort(group.unique()) for key, group in tried.groupby(keys)[axis]}
    windows = {key: Window.of(group, axis, every[key], codes is not None)
               for key, group in rows.groupby(keys) if group[axis].nunique() >= FEWEST}
    degree = degree_of(list(windows.values()))
    return pd.DataFrame([dict(zip(keys, key, strict=True)) | (
        windows[key].locate(axis, degree, level) if key in windows else nowhere(axis, 0)) for key in every])


def _keyed(data: pd.DataFrame, by: str, crossed: str | None, place: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows, counted anew, and the columns for whose values there is an optimum each."""
    data = data.reset_index(drop=True)
    if crossed is None:
        return data, [by]
    if crossed not in data:
        raise no_column(place, crossed, data.columns)
    if data[crossed].isna().any():
        raise UserError(f"{place}: column {crossed!r} has missing values; leave these rows out")
    return data, [by, crossed]


def _check_positive(rows: pd.DataFrame, axis: str, place: str) -> None:
    if rows[axis].min() <= 0:
        raise UserError(f"{place}: {axis} = {rows[axis].min():g} on an axis of logarithms; leave out rows with "
                        f"{axis} <= 0")


def largest_stable(data: pd.DataFrame, axis: str, stable: str, by: str, *, crossed: str | None = None,
                   level: float = LEVEL) -> pd.DataFrame:
    """The largest value of ``axis`` below which trials are stable (``stable`` is 1 or True), for each value of ``by``
    (and of ``crossed``).

    The mean over replicates of the logarithm of their largest stable value, each between two neighbours on the grid and
    taken at their midpoint (Spearman 1908, Karber 1931), after making the share of stable trials fall along the axis by
    isotonic regression. Two errors add up: the replicates' spread s, pooled over ``by``, and what the grid's step w (in
    logarithms) does to all replicates alike, w^2/12 exp(-(2 pi s/w)^2): spread is dither (Widrow 1961). One replicate
    shows no spread, and the interval is then that of the trial rather than of its kind. Columns and errors are those of
    ``optimum``, and ``bracket``, the width in logarithms of what the grid leaves open; ``at_edge``: some trials are
    unstable at the least value of the axis, or stable at the greatest.
    """
    data, keys = _keyed(data, by, crossed, "largest_stable")
    rows, _ = numbers(data, (by, axis, stable), "largest_stable")
    if not rows[stable].isin((0, 1)).all():
        raise UserError(f"largest_stable: {stable} has {rows[stable][~rows[stable].isin((0, 1))].iloc[0]:g}; "
                        "give a column of 0 and 1")
    _check_positive(rows, axis, "largest_stable")
    found = []
    for key, group in rows.assign(**data.loc[rows.index, keys]).groupby(keys):
        shares = group.groupby(axis)[stable].agg(["mean", "size"])
        grid, u = shares.index.to_numpy(float), np.log(shares.index.to_numpy(float))
        stays = isotonic_regression(shares["mean"], weights=shares["size"], increasing=False).x
        leaving, middle = -np.diff(stays), (u[1:] + u[:-1]) / 2
        edge = bool(stays[0] < 1 or stays[-1] > 0)
        mean = np.log(grid[0 if stays[0] < 1 else -1]) if edge else leaving @ middle
        found.append(dict(zip(keys, key, strict=True)) | {
            axis: np.exp(mean), "replicates": shares["size"].mean(), "rows": len(group), "at_edge": edge,
            "squares": leaving @ (middle - mean) ** 2, "width": leaving @ np.diff(u)})
    table = pd.DataFrame(found)
    inside, number, width = ~table["at_edge"], table["replicates"], table["width"].clip(lower=1e-300)
    freedom = float((number[inside] - 1).sum())
    spread = float((table["squares"] * number)[inside].sum()) / freedom if freedom > 0 else 0.0
    dithered = np.exp(-((2 * np.pi / width) ** 2) * (spread - width**2 / 12).clip(lower=0))
    se = np.sqrt(spread / number + width**2 / 12 * dithered).where(inside, np.inf)
    dof = freedom if spread > 0 else np.inf
    reach = stdtrit(dof, (1 + level) / 2) * se
    return table[[*keys, axis]].assign(
        low=table[axis] * np.exp(-reach), high=table[axis] * np.exp(reach), se=se, dof=dof, rows=table["rows"],
        at_edge=table["at_edge"], bracket=width)


def fit_optimum(data: pd.DataFrame, law: str | Law, axis: str, y: str, by: str, *,
                mode: Literal["min", "max", "largest_stable"] = "min", cluster: str | None = None,
                crossed: str | None = None, level: float = LEVEL, seed: int = 0) -> LawFit:
    """A law of the ``optimum`` of ``axis`` over ``by``, or of ``largest_stable`` (``y`` then says what is stable).

    With ``crossed`` each seed has an optimum of its own at each value of ``by``, whatever the others lack there, and
    the law is that of the mean of their logarithms: what a seed shifts everywhere is fitted beside it, and carried
    (``crossed.py``).

    Optima at an edge of the grid, or not found, are left out; ``method`` says how many and why, and what the intervals
    rest on. ``data`` has the ``error`` of each. Intervals of largest stable values hold all laws that go through what
    the grid leaves open of each, from ``lower`` to ``upper`` in ``data`` (``brackets.py``). Raises UserError as
    ``optimum`` and ``fit_law`` do.
    """
    stable = mode == "largest_stable"
    if mode == "largest_stable":
        table = largest_stable(data, axis, y, by, crossed=crossed, level=level)
    else:
        table = optimum(data, axis, y, by, mode=mode, cluster=cluster, crossed=crossed, level=level)
    kept = table[~table["at_edge"] & table[axis].notna()].reset_index(drop=True)
    found, of = kept[by].nunique(), table[by].nunique()
    if found < 3:
        edge = table.groupby(by)["at_edge"].any().sum()
        raise UserError(f"fit_optimum: a best {axis} is found at {found} of {of} values of {by}, and lies "
                        f"at the edge of what was tried at {edge}; it takes 3: widen its grid")
    law = forms.law(law) if isinstance(law, str) else law
    kept = kept.assign(error=kept["se"] * (1.0 if law.log else kept[axis]))
    # Seeds' largest stable values say by themselves how far each is off, and brackets what the grid does to all.
    told = stable and crossed is not None and kept[crossed].nunique() > 1
    kept["least"] = 0.0 if told else kept["error"]
    fit = fit_law(kept, law, by, axis, cluster=by if len(kept) > found else None, crossed=crossed,
                  errors=("least", "dof"), level=level, seed=seed)
    method = f"{fit.method}, of {len(kept)} {'largest stable values' if stable else 'optima'}"
    if len(kept) < len(table):
        edge = int(table["at_edge"].sum())
        method += f"; left out: {edge} at an edge of the grid, {len(table) - len(kept) - edge} not found"
    fit = replace(fit, method=method, data=fit.data.join(kept[["error", *([crossed] if crossed else [])]]))
    return through(fit, kept["bracket"].to_numpy(), kept[crossed] if crossed else None) if stable else fit
