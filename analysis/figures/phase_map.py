"""Phase maps: what became of the trials in each cell of a grid of two axes, and the boundary between outcomes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from analysis.boundaries.boundary import Boundary
from analysis.estimates import describe
from analysis.figures.overview import place, positions_of, thinned
from analysis.figures.style import (
    GREY,
    LINES,
    PHASE_LOOKS,
    is_numeric,
    label,
    log_spaced,
    make_log,
    name_lines,
    sheet,
    shorts,
    spans_decades,
)
from analysis.observe import observations
from analysis.phases import PHASES
from analysis.selection import Where, said, select_rows
from analysis.tables import Frames
from trials.errors import UserError, no_column

Array = npt.NDArray[np.float64]
NONE = "none"  # what a trial without a value is called


def phase_map(rows: pd.DataFrame | Frames, x: str, y: str, value: str, boundary: Boundary | None = None, *,
              where: Where | None = None, title: str | None = None) -> Figure:
    """The cells of the grid of ``x`` and ``y``, coloured by ``value``; ``rows`` has a row for each trial, or
    they are those of a study's tables at the end of training.

    A category (phase, status, truth value; at most seven) has a colour and a marker; a cell whose trials disagree is
    split by their shares. A number is shown by its mean over trials where it is finite, hatched where it is in none.
    Cells without trials stay blank. Where fewer than half of the cells have trials, each trial is a point instead.
    ``boundary`` is drawn over them with its 95% band, dashed for a crossover. ``where`` keeps rows by their values:
    {"weight_decay": 0}. Raises UserError for an unknown column or value, no rows, more than seven categories, and a
    boundary over other axes.
    """
    if isinstance(rows, Frames):
        rows = observations(rows, {x, y, value, "diverged", *(where or {})})
    rows = select_rows(rows, where, "phase map")
    for name in (x, y, value):
        if name not in rows:
            raise no_column("phase map", name, rows.columns)
    if boundary is not None and (boundary.x, boundary.y) != (x, y):
        raise UserError(f"phase map of {x} and {y}: the boundary is over {boundary.x} and {boundary.y}; "
                        "fit one over the same axes")
    rows = rows.dropna(subset=[x, y])
    if rows.empty:
        raise UserError(f"phase map: no row has both {x} and {y}; check what was selected")
    cells = len(rows[[x, y]].drop_duplicates())
    grid = 2 * cells >= rows[x].nunique() * rows[y].nunique()
    categories = not is_numeric(rows[value])
    drawn = "cells whose trials disagree are split" if categories else "means of cells; hatched: no trial has a number"
    note = f"{len(rows)} trials in {cells} cells; {drawn}; blank: none of these trials." if grid else (
        f"{len(rows)} trials, a point each{'' if categories else '; crosses have no number'}.")
    note += said(where)
    if boundary is not None:
        middle = f", at the middle of {' and '.join(boundary.given)}" if boundary.given else ""
        note += f" {boundary.kind.capitalize()}{middle}: {boundary.because}; {describe(boundary.estimates)}."
        note += " Dotted: its 95% band." if boundary.kind != "none" else ""
    what = label(value, unit=False).partition("  ")[0]
    title = title or f"{what}, by {label(x, unit=False)} and {label(y, unit=False)}"
    with sheet(1, 1, title, note) as (figure, (panel,)):
        panel.set(xlabel=label(x), ylabel=label(y))
        panel.set_title("")
        panel.grid(False)
        at = pd.DataFrame({"x": positions_of(rows[x]).astype(float), "y": positions_of(rows[y]).astype(float),
                           "value": rows[value]})
        panel.update_datalim(at[["x", "y"]].to_numpy())
        panel.autoscale_view()
        log = boundary.log if boundary is not None else (False, False)
        set_scale(panel, "x", rows[x], log[0])
        set_scale(panel, "y", rows[y], log[1])
        if grid:
            panel.set(xlim=cell_edges(panel.xaxis, at["x"])[[0, -1]], ylim=cell_edges(panel.yaxis, at["y"])[[0, -1]])
        if categories:
            at["value"] = [NONE if pd.isna(found) else str(found) for found in at["value"]]
            _categories(panel, at, grid)
        else:
            at["value"] = at["value"].astype(float).replace([np.inf, -np.inf], np.nan)
            _numbers(figure, panel, at, grid, label(value))
        if boundary is not None and boundary.kind != "none":
            _draw_boundary(panel, boundary)
        if panel.get_legend_handles_labels()[1]:
            name_lines(figure, panel)
            for handle in figure.legends[0].legend_handles:
                if isinstance(handle, Line2D) and handle.get_marker() != "None":
                    handle.set_markersize(6)
    return figure


def set_scale(panel: Axes, which: Literal["x", "y"], values: pd.Series, log: bool = False) -> None:
    """The scale of an axis for these values, and its ticks: at the values themselves where they are few.

    Categories stand side by side; numbers that span decades, or where ``log`` says so, are on a log axis, and where 0
    is among them (no decay, step 0) it stands at its edge.
    """
    place(panel, which, values)
    if not is_numeric(values):
        return
    if log:
        make_log(panel, which)
    axis = panel.xaxis if which == "x" else panel.yaxis
    values = values.drop_duplicates().sort_values()
    positive = values[values > 0]
    if values.iloc[0] == 0 and log_spaced(positive):
        low, high = positive.iloc[0], positive.iloc[-1]
        getattr(panel, f"set_{which}scale")("symlog", linthresh=low, linscale=0.5)
        panel.set(**{f"{which}lim": (-0.3 * low, high * (high / low) ** 0.05)})
    if len(values) <= 8:
        ticks = values.to_numpy()
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(ticks, thinned(panel, ticks) if which == "x" else shorts(values))


def cell_edges(axis: Axis, values: npt.ArrayLike) -> Array:
    """The ends of the cells around the n different ``values``, in order, halfway between them on the scale of
    ``axis``: (n + 1,)."""
    scale = axis.get_transform()
    at = scale.transform(np.unique(np.asarray(values, float)))
    first, last = (at[1] - at[0], at[-1] - at[-2]) if len(at) > 1 else (1.0, 1.0)
    ends = np.concatenate([at[:1] - first / 2, (at[1:] + at[:-1]) / 2, at[-1:] + last / 2])
    return np.asarray(scale.inverted().transform(ends))


def _categories(panel: Axes, at: pd.DataFrame, grid: bool) -> None:
    """Each category in its colour: strips of cells, as wide as its share, with its marker in them; or points."""
    names = sorted(set(at["value"]), key=lambda name: (name == NONE, name not in PHASES,
                                                       PHASES.index(name) if name in PHASES else 0, name))
    named = [name for name in names if name != NONE]
    if len(named) > len(LINES):
        raise UserError(f"phase map: {len(named)} categories, of which {len(LINES)} can be told apart; join some, or "
                        "map a number")
    # A phase has the same colour in every map, whichever others are in it.
    phases = set(named) <= set(PHASES)
    order = PHASES if phases else named
    looks = {name: LINES[order.index(name)][:2] for name in named} | {NONE: ("#cccccc", "x")}
    if phases:
        looks |= {name: (PHASE_LOOKS[name][0], looks[name][1]) for name in named}
    dots: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0.6, "markersize": 4.0}
    if not grid:
        for name in names:
            of = at[at["value"] == name]
            panel.plot(of["x"], of["y"], color=looks[name][0], marker=looks[name][1], label=name, **dots)
        return
    dots["markersize"] = float(np.clip(min(110 / at["x"].nunique(), 60 / at["y"].nunique()), 1.5, 5))
    across, up, scale = cell_edges(panel.xaxis, at["x"]), cell_edges(panel.yaxis, at["y"]), panel.xaxis.get_transform()
    shares = at.groupby(["x", "y"])["value"].value_counts(normalize=True).unstack(fill_value=0.0)[names]
    before = shares.cumsum(axis=1) - shares
    for name in names:
        share, start = (table[name][shares[name] > 0] for table in (shares, before))
        x, y = (share.index.get_level_values(axis) for axis in ("x", "y"))
        column, row = np.searchsorted(across, x), np.searchsorted(up, y)
        left, right = scale.transform(across[column - 1]), scale.transform(across[column])
        low, middle, high = (scale.inverted().transform(left + (start + part * share).to_numpy() * (right - left))
                             for part in (0, 0.5, 1))
        corners = np.stack([[low, up[row - 1]], [high, up[row - 1]], [high, up[row]], [low, up[row]]])
        panel.add_collection(PolyCollection(list(corners.transpose(2, 0, 1)), facecolors=looks[name][0],
                                            edgecolors="white", linewidths=0.4), autolim=False)
        panel.plot(middle, y, color=looks[name][0], marker=looks[name][1], label=name,
                   markeredgecolor=GREY if name == NONE else "white", **dots)


def _numbers(figure: Figure, panel: Axes, at: pd.DataFrame, grid: bool, name: str) -> None:
    """Means of cells, or points, with a colour bar."""
    norm = LogNorm() if spans_decades(at["value"]) else Normalize()
    drawn: ScalarMappable
    if grid:
        table = at.groupby(["y", "x"])["value"].mean().unstack("x")
        across, up = cell_edges(panel.xaxis, at["x"]), cell_edges(panel.yaxis, at["y"])
        tried = at.groupby(["y", "x"]).size().unstack("x").notna()
        empty = np.ma.masked_where(~(tried & table.isna()).to_numpy(), np.zeros(table.shape))
        panel.pcolor(across, up, empty, hatch="////", facecolor="none", edgecolor="#bbbbbb", linewidth=0, cmap="Greys")
        drawn = panel.pcolormesh(across, up, table.to_numpy(float), norm=norm, edgecolors="white", linewidth=0.4)
    else:
        known = at["value"].notna()
        drawn = panel.scatter(at["x"][known], at["y"][known], c=at["value"][known], norm=norm, s=12, edgecolors=GREY,
                              linewidths=0.3)
        panel.scatter(at["x"][~known], at["y"][~known], marker="x", color=GREY, s=10, linewidths=0.7)
    figure.colorbar(drawn, ax=panel, aspect=30, pad=0.03, label=name)


def _draw_boundary(panel: Axes, boundary: Boundary) -> None:
    """The curve of probability 1/2 and its band, black with a white halo: seen on every colour."""
    low, high = boundary.data[boundary.x].min(), boundary.data[boundary.x].max()
    x = np.geomspace(low, high, 200) if boundary.log[0] else np.linspace(low, high, 200)
    limits = panel.get_xlim(), panel.get_ylim()
    halo = [withStroke(linewidth=3, foreground="white")]
    lower, upper = (np.clip(end, *limits[1]) for end in boundary.band(x))
    panel.fill_between(x, lower, upper, facecolor="white", alpha=0.4, linewidth=0)
    for end in (lower, upper):
        panel.plot(x, end, color="black", linestyle=":", linewidth=0.8)
    panel.plot(x, boundary.line(x), color="black", linestyle="-" if boundary.kind == "boundary" else "--",
               linewidth=1.6, path_effects=halo, label=f"P({boundary.outcome}) = 1/2")
    panel.set(xlim=limits[0], ylim=limits[1])
