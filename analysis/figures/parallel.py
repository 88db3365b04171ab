"""Many axes at a glance: each cell of a sweep as a line across its axes, coloured by what came of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from analysis.cells import cell_axes
from analysis.figures.curves import SEQUENTIAL
from analysis.figures.overview import counts, positions_of
from analysis.figures.phase_map import set_scale
from analysis.figures.replicates import by_trial, named
from analysis.figures.style import GREY, label, sheet, spans_decades
from analysis.selection import Where, said, select
from analysis.tables import Frames
from trials.errors import UserError

LOW_IS_BEST = ("loss", "error", "nll", "ece", "brier")


def parallel_view(tables: Frames, metric: str, layer: str | None = None, *, where: Where | None = None,
                  title: str | None = None) -> Figure:
    """A line for each cell (trials that differ in the seed alone) across the swept axes, ending in the colour bar at
    the mean of ``metric`` over its finished trials.

    Axes have a scale of their own, logarithmic where their values are, and names for categories. The best cells are
    thickest and on top: those with the highest metric, the lowest for a loss or an error; colours are those of a map.
    Cells of which no trial finished are dotted and do not reach the bar. ``metric`` is as in ``by_trial``, or a column
    of ``layer``; ``where`` keeps trials by their values: {"lr": 0.1}. Raises UserError for an unknown metric or value,
    a metric that no finished trial has, and a study of fewer than two axes.
    """
    tables = select(tables, where)
    metric = f"{layer}.{metric}" if layer else metric
    trials = by_trial(tables, metric)
    axes = [axis for axis in cell_axes(tables) if trials[axis].nunique() > 1]
    if len(axes) < 2:
        raise UserError(f"{tables.place}: axes with several values: {len(axes)}; a parallel view needs two or more")
    if trials[metric].isna().all():
        raise UserError(f"{tables.place}: no finished trial has {metric}; choose another metric")
    cells = trials.groupby(axes, observed=True)[metric].mean().reset_index()
    low = any(word in metric for word in LOW_IS_BEST)
    cells = cells.sort_values(metric, ascending=not low, na_position="first", kind="stable")
    none = int(cells[metric].isna().sum())
    title = title or f"{tables.name}: {named(metric).partition('  ')[0]}, by all axes"
    note = (f"{counts(trials)}{said(where)} A line for each of {len(cells)} cells, means over seeds; on top: the "
            f"{'lowest' if low else 'highest'}; thick: the best tenth."
            f"{f' Dotted: {none} of which no trial has one.' if none else ''}")
    norm = (LogNorm if spans_decades(cells[metric]) else Normalize)(cells[metric].min(), cells[metric].max())
    with sheet(1, 2, title, note, width_ratios=(40, 1)) as (figure, (panel, unused)):
        unused.remove()  # it has made the sheet wide
        panel.set(xlim=(0, len(axes)), ylim=(0, 1), yticks=[], xticks=range(len(axes)),
                  xticklabels=[label(axis).replace(" (", "\n(") for axis in axes])
        panel.set_title("")
        panel.grid(False)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        colors = ScalarMappable(norm, SEQUENTIAL)
        figure.colorbar(colors, cax=panel.inset_axes((1, 0, 0.015, 1)), label=named(metric))
        heights = [_axis(panel, place, cells[axis]) for place, axis in enumerate(axes)]
        _lines(panel, np.column_stack(heights), cells[metric], colors)
    return figure


def _axis(panel: Axes, place: int, values: pd.Series) -> np.ndarray:
    """Draw an upright axis at ``place``, with a scale for ``values``; their heights on it, from 0 to 1."""
    upright = panel.inset_axes((place / panel.get_xlim()[1], 0, 1e-3, 1), zorder=5)
    upright.patch.set_visible(False)
    upright.spines[["right", "top", "bottom"]].set_visible(False)
    upright.grid(False)
    positions = positions_of(values).to_numpy(float)
    upright.update_datalim(np.column_stack([np.zeros(len(positions)), positions]))
    upright.autoscale_view()
    set_scale(upright, "y", values)
    upright.set_xticks([])
    for name in upright.get_yticklabels(which="both"):  # lines run behind them
        name.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5})
    scale = upright.yaxis.get_transform()
    foot, head = scale.transform(np.array(upright.get_ylim()))
    return np.asarray((scale.transform(positions) - foot) / (head - foot))


def _lines(panel: Axes, heights: np.ndarray, metric: pd.Series, colors: ScalarMappable) -> None:
    """One for each row, the best last; dotted where the metric is null. The best tenth is thick."""
    places = np.arange(heights.shape[1] + 1)
    ends = np.column_stack([heights, colors.norm(metric.to_numpy())])
    lines = np.stack([np.broadcast_to(places, ends.shape), ends], axis=2)
    known = metric.notna().to_numpy()
    panel.add_collection(LineCollection(list(lines[~known, :-1]), colors=GREY, linestyles=":", linewidths=0.6))
    best = np.arange(known.sum()) >= int(0.9 * known.sum())
    panel.add_collection(LineCollection(list(lines[known]), colors=colors.to_rgba(metric[known]),
                                        linewidths=np.where(best, 1.8, 0.7), alpha=np.where(best, 1.0, 0.7)))
