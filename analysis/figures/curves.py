"""Training curves: a metric over log-spaced steps, a line for each value of an axis."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.cells import cell_axes, last_layers, main_layer
from analysis.figures.esd import pick
from analysis.figures.overview import counts
from analysis.figures.phase_map import set_scale
from analysis.figures.replicates import named
from analysis.figures.style import (
    LINES,
    is_numeric,
    label,
    log_spaced,
    make_log,
    name_lines,
    sheet,
    short,
    spans_decades,
)
from analysis.tables import Tables
from trials.errors import UserError, did_you_mean

# Without the yellow end, which is lost on white paper; each colour is lighter than the one before, in grey too.
SEQUENTIAL = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.88, 256)))


def curves(tables: Tables, metric: str, axis: str, layer: str | None = None) -> Figure:
    """``metric``, a number of the tables ``steps`` or ``layers``, over the steps of training; step 0 at the left edge.

    A line for each value of ``axis``: the mean over trials that differ in the seed alone, in a band from the least to
    the largest of them. The other axes are held where most values are; the note says where. ``layer`` is the widest
    hidden one by default. Raises UserError for an unknown metric, axis or layer, a layer for a metric that has none, a
    metric that was not measured, and more than seven categories.
    """
    if axis not in tables.axes:
        raise UserError(f"{tables.place}: no axis called {axis!r}; {did_you_mean(axis, tables.axes)}")
    rows, called = _measured(tables, metric, layer)
    trials = tables.trials[tables.trials["trial_id"].isin(rows["trial_id"])].dropna(subset=[axis])
    trials, held = pick(trials, axis, [other for other in cell_axes(tables) if other != axis], len(trials))
    rows = rows.merge(trials[["trial_id", axis]], on="trial_id")
    values = trials[axis].drop_duplicates()
    numeric = is_numeric(values)
    if not numeric and len(values) > len(LINES):
        raise UserError(f"{tables.place}: {axis} has {len(values)} categories, of which {len(LINES)} can be told apart")
    where = ", ".join(f"{label(name, unit=False)} {short(value)}" for name, value in held.items())
    note = f"{tables.name}: {counts(trials)}{f' Only those with {where}.' if where else ''}"
    if trials[axis].duplicated().any():
        note += " Lines: means over seeds; bands: from the least to the largest."
    title = f"{called.partition('  ')[0]} in training, by {label(axis, unit=False)}"
    with sheet(1, 1, title, note) as (figure, (panel,)):
        panel.set(xlabel="optimizer steps", ylabel=called)
        panel.set_title("")
        looks: list[tuple[Any, str, str]] = list(LINES)
        if numeric:
            norm = (LogNorm if log_spaced(values) else Normalize)(values.min(), values.max())
            colors = ScalarMappable(norm, SEQUENTIAL)
            looks = [(colors.to_rgba(value), "", "-") for value in values]
        for value, look in zip(values, looks, strict=False):
            _line(panel, rows[rows[axis] == value].groupby("step")[metric], look, short(value))
        if spans_decades(rows[metric]):
            make_log(panel, "y")
        set_scale(panel, "x", rows["step"])
        if numeric:
            bar = figure.colorbar(colors, ax=panel, aspect=30, pad=0.03, label=label(axis))
            if len(values) <= 12:
                bar.set_ticks(values.to_numpy(), labels=[short(value) for value in values])
                bar.ax.yaxis.set_minor_locator(NullLocator())
        else:
            name_lines(figure, panel)
    return figure


def _measured(tables: Tables, metric: str, layer: str | None) -> tuple[pd.DataFrame, str]:
    """(trial_id, step and ``metric`` wherever it was measured and is finite; what it is called)."""
    numbers = {table: [field.name for field in tables.rows(table).schema if field.name not in ("step", *tables.axes)
                       and field.type in (pa.float64(), pa.int64())] for table in ("steps", "layers")}
    table = "steps" if metric in numbers["steps"] else "layers"
    if metric not in numbers[table]:
        raise UserError(f"{tables.place}: no number called {metric!r} in steps or layers; "
                        f"{did_you_mean(metric, numbers['steps'] + numbers['layers'])}")
    if table == "steps":
        if layer is not None:
            raise UserError(f"{tables.place}: {metric} is of the whole model; leave out the layer {layer!r}")
        rows, called = tables.table("steps", ["trial_id", "step", metric]), named(metric)
    else:
        known = last_layers(tables, ())
        layer = layer or (main_layer(known) if len(known) else "")
        rows = tables.table("layers", ["trial_id", "step", metric], pc.field("layer") == layer)
        if rows.empty:
            raise UserError(f"{tables.place}: no layer called {layer!r}; {did_you_mean(layer, set(known['layer']))}")
        called = named(f"{layer}.{metric}")
    rows = rows[np.isfinite(rows[metric].astype(float))]
    if rows.empty:
        raise UserError(f"{tables.place}: {metric} was never measured; see the study's measure block")
    return rows, called


def _line(panel: Axes, metric: pd.core.groupby.SeriesGroupBy, look: tuple[Any, str, str], name: str) -> None:
    """Mean and range over trials at each step."""
    color, marker, dash = look
    mean = metric.mean()
    panel.fill_between(mean.index, metric.min(), metric.max(), color=color, alpha=0.2, linewidth=0)
    panel.plot(mean.index, mean, color=color, marker=marker, linestyle=dash, label=name, markeredgecolor="white",
               markeredgewidth=0.5)
