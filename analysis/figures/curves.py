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
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.cells import cell_axes, last_layers, main_layer
from analysis.figures.held import first_cells, held_in_each, pick
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
    shorts,
    spans_decades,
)
from analysis.selection import Where, column_called, said, select
from analysis.tables import Frames
from trials.errors import UserError, did_you_mean
from trials.spectra import GROUPS, METRICS

# Without the yellow end, which is lost on white paper; each colour is lighter than the one before, in grey too.
SEQUENTIAL = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.88, 256)))


def curves(tables: Frames, metric: str, axis: str, layer: str | None = None, *, where: Where | None = None,
           title: str | None = None) -> Figure:
    """``metric``, a number of the tables ``steps`` or ``layers``, over the steps of training; step 0 at the left edge.

    A line for each value of ``axis``: the mean over trials that differ in the seed alone, in a band from the least to
    the largest of them; a point where there is one step only. The other axes are held at the values in ``where``
    ({"lr": 0.1}), or else where most values are; the note says where. ``layer`` is the widest hidden one by default;
    ``LAYER.column`` names both.
    Raises UserError for an unknown metric, axis, layer or value, a layer for a metric that has none, a metric that was
    not measured or is null throughout, and more than seven categories.
    """
    tables = select(tables, where)
    if layer is None and "." in metric:
        layer, _, metric = metric.rpartition(".")
    axis = column_called(axis, tables.axes, tables.place, "axis")
    rows, called = _measured(tables, metric, layer)
    trials = tables.trials[tables.trials["trial_id"].isin(rows["trial_id"])].dropna(subset=[axis])
    others = [other for other in cell_axes(tables) if other != axis]
    if axis == "study":  # which differ in their axes
        trials = first_cells(trials, others)
        held = f" In {held_in_each(trials, others)}."
        if without := sorted(set(tables.trials["study"]) - set(trials["study"])):
            held += f" Without {', '.join(without)}, where there is no such number."
    else:
        trials, shared = pick(trials, axis, others, len(trials))
        held = said(shared)
    rows = rows.merge(trials[["trial_id", axis]], on="trial_id")
    values = trials[axis].drop_duplicates()
    numeric = is_numeric(values)
    if not numeric and len(values) > len(LINES):
        raise UserError(f"{tables.place}: {axis} has {len(values)} categories, of which {len(LINES)} can be told apart")
    note = f"{tables.name}: {counts(trials)}{held}"
    if rows.merge(trials[["trial_id"]])["step"].nunique() == 1:
        note += " Measured at one step only; set that group of measure to log for curves."
    if trials[axis].duplicated().any():
        note += " Lines: means over seeds; bands: from the least to the largest."
    title = title or f"{called.partition('  ')[0]} in training, by {label(axis, unit=False)}"
    with sheet(1, 1, title, note) as (figure, (panel,)):
        panel.set(xlabel="optimizer steps", ylabel=called)
        panel.set_title("")
        looks: list[tuple[Any, str, str]] = list(LINES)
        if numeric:
            ranked = values.min() == 0 and log_spaced(values[values > 0])  # no scale shows 0 beside decades
            shades = pd.Series(np.arange(len(values)), values.index) if ranked else values
            norm = (LogNorm if log_spaced(shades) and not ranked else Normalize)(shades.min(), shades.max())
            colors = ScalarMappable(norm, SEQUENTIAL)
            looks = [(colors.to_rgba(shade), "", "-") for shade in shades]
            if ranked:
                colors = ScalarMappable(BoundaryNorm(np.arange(len(values) + 1) - 0.5, len(values)),
                                        ListedColormap([color for color, *_ in looks]))
        for value, look in zip(values, looks, strict=False):
            _line(panel, rows[rows[axis] == value].groupby("step")[metric], look, short(value))
        if spans_decades(rows[metric]):
            make_log(panel, "y")
        set_scale(panel, "x", rows["step"])
        if numeric:
            bar = figure.colorbar(colors, ax=panel, aspect=30, pad=0.03, label=label(axis))
            if ranked or len(values) <= 12:
                stride = -(-len(values) // 12)
                bar.set_ticks(shades.to_numpy()[::stride], labels=shorts(values)[::stride])
                bar.ax.yaxis.set_minor_locator(NullLocator())
        else:
            name_lines(figure, panel)
    return figure


def _measured(tables: Frames, metric: str, layer: str | None) -> tuple[pd.DataFrame, str]:
    """(trial_id, step and ``metric`` wherever it was measured and is finite; what it is called)."""
    numbers = {table: [field.name for field in tables.schema(table) if field.name not in ("step", *tables.axes)
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
    found = rows[np.isfinite(rows[metric].astype(float))]
    if found.empty:
        raise UserError(f"{tables.place}: {metric} {_why_null(tables, table, metric, rows)}")
    return found, called


def _why_null(tables: Frames, table: str, metric: str, rows: pd.DataFrame) -> str:
    """Why there is no number in ``rows``: it was not measured, or a gate let none pass."""
    why = next((reason for group in GROUPS.values() if metric in {column.name for column in group.columns}
                for reason in group.why.values()), None)
    if table == "steps" or why is None or tables.table("layers", ["stable_rank"])["stable_rank"].isna().all():
        return "was never measured; see the study's measure block"
    raw = f"{metric}_raw" if f"{metric}_raw" in {column.name for column in METRICS} else ""
    return f"is null in all {len(rows)} rows: {why}{f'; {raw} has the number without that test' if raw else ''}"


def _line(panel: Axes, metric: pd.core.groupby.SeriesGroupBy, look: tuple[Any, str, str], name: str) -> None:
    """Mean and range over trials at each step."""
    color, marker, dash = look
    mean = metric.mean()
    marker = marker or ("o" if len(mean) == 1 else "")  # a line through one point is not seen
    panel.fill_between(mean.index, metric.min(), metric.max(), color=color, alpha=0.2, linewidth=0)
    panel.plot(mean.index, mean, color=color, marker=marker, linestyle=dash, label=name, markeredgecolor="white",
               markeredgewidth=0.5)
