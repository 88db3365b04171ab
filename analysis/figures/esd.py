"""Spectra themselves: the density of eigenvalues of a layer beside the Marchenko-Pastur bulk and the power-law tail
fitted to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from analysis.cells import cell_axes, labelled_layers, last_layers, main_layer
from analysis.chance import at_chance
from analysis.figures.held import first_cells, held_in_each, pick
from analysis.figures.style import COLORS, GREY, LINES, called, label, name_lines, sheet, short, shorts
from analysis.selection import Where, column_called, select
from analysis.tables import Frames
from trials.errors import UserError, did_you_mean

DENSITY = r"density  $\rho(\lambda)$"
EIGENVALUE = r"eigenvalue  $\lambda$  of  $W^TW/N$"


def spectra_figure(tables: Frames, layer: str | None = None, axis: str | None = None, count: int = 4, *,
                   where: Where | None = None, overlay: bool = False, title: str | None = None) -> Figure:
    """Density of the eigenvalues of W^T W / N of ``layer`` (by default the widest hidden one) at the end of training.

    One panel for each of at most ``count`` values of ``axis`` (by default the first), evenly picked, but for those that
    show a phase more; each shows the spectrum of a single trial, never a pool of several: all agree in the other axes
    and the seed, which the note names (``where`` chooses them: {"lr": 0.1}). They are those with fewest trials that
    ended at chance, and a panel of one says so. The Marchenko-Pastur density of the stored fit (``lambda_plus``),
    scaled to its share of the eigenvalues, is drawn over it. Panels share their axes unless their spectra differ by
    decades. ``overlay`` draws all of them into one panel, as lines. Raises UserError where no spectra were measured,
    and for an unknown layer, axis or value.
    """
    tables = select(tables, where)
    layers = last_layers(tables, ("lambda_plus", "n_spikes"))
    stored = tables.table("spectra", ["trial_id", "step", "layer"])
    layers = layers.merge(stored, on=["trial_id", "step", "layer"])
    if layers.empty:
        raise UserError(f"{tables.place}: no eigenvalues were kept{' of these trials' if where else ''}; set "
                        "measure.eigenvalues to last and run again")
    known = set(layers["layer"])
    if layer and layer not in known:
        raise UserError(f"{tables.place}: no spectra of a layer called {layer!r}; {did_you_mean(layer, known)}")
    axis = column_called(axis, tables.axes, tables.place, "axis") if axis else _first_varied(tables)
    others = [other for other in tables.axes if other != axis]
    rows = layers.merge(tables.trials[["trial_id", axis, *others]]).merge(at_chance(tables).reset_index())
    phases = labelled_layers(tables)[["trial_id", "layer", "phase"]]
    fixed: dict[str, object] = {}
    if axis == "study":  # which differ in layers and axes
        rows = first_cells(pd.concat([of[of["layer"] == (layer or main_layer(of))]
                                      for _, of in rows.groupby("study", observed=True)]), others)
    else:
        rows = rows[rows["layer"] == (layer or main_layer(rows))].merge(phases, on=["trial_id", "layer"], how="left")
        rows, fixed = pick(rows, axis, others, count)
    kept = tables.table("spectra", ["trial_id", "step", "layer", "eigenvalues"],
                        pc.field("trial_id").isin(rows["trial_id"].tolist()))
    rows = rows.merge(kept, on=["trial_id", "step", "layer"])
    held = ", ".join(f"{label(name, unit=False)} {short(value)}" for name, value in fixed.items())
    shapes = [f"{called(row.layer)} ({row.rows} × {row.cols})" for row in rows.itertuples()]
    title = title or f"{tables.name}: spectrum of {' and '.join(dict.fromkeys(shapes))} after training"
    if axis == "study":
        held = held_in_each(rows, others)
    note = f"A single trial a {'line' if overlay else 'panel'}{f' ({held})' if held else ''}. "
    return (_overlaid if overlay else _side_by_side)(rows, axis, title, note)


def _first_varied(tables: Frames) -> str:
    axes = [*cell_axes(tables), "seed"]
    return next((axis for axis in axes if tables.trials[axis].nunique() > 1), axes[0])


def _side_by_side(rows: pd.DataFrame, axis: str, title: str, note: str) -> Figure:
    shared, bins = not _apart(rows["eigenvalues"]), int(min(44, 8 + rows["cols"].max() // 4))
    note += ("Bars: density of its eigenvalues; curve: Marchenko-Pastur bulk; dotted: its edge; triangles: eigenvalues "
             f"beyond the edge.{'' if shared else ' Each panel has axes of its own: the spectra differ by decades.'}")
    columns = min(len(rows), 2)
    with sheet(-(-len(rows) // columns), columns, title, note, sharex=shared, sharey=shared) as (figure, panels):
        for panel, row, name in zip(panels, rows.to_dict("records"), shorts(rows[axis]), strict=False):
            _density(panel, row, bin_edges(rows["eigenvalues"] if shared else pd.Series([row["eigenvalues"]]), bins))
            lost = " (at chance)" if row["at_chance"] else ""
            panel.set_title(f"{panel.get_title(loc='left')} {label(axis, unit=False)} {name}{lost}")
            panel.set_ylabel(DENSITY)
            panel.set_xlabel(EIGENVALUE)
            panel.label_outer() if shared else _few_ticks(panel)
        if shared:
            _share_height(panels[:len(rows)])
        for panel in panels[len(rows):]:
            panel.remove()
    return figure


def _overlaid(rows: pd.DataFrame, axis: str, title: str, note: str) -> Figure:
    """The densities as lines in one panel, with the edge of each bulk as a tick at the foot."""
    if len(rows) > len(LINES):
        raise UserError(f"count: {len(rows)} spectra in one panel, of which {len(LINES)} can be told apart")
    edges = bin_edges(rows["eigenvalues"])
    with sheet(1, 1, title, note + "Lines: density of its eigenvalues; dotted: the edge of its Marchenko-Pastur bulk."
               ) as (figure, (panel,)):
        panel.set(xscale="log", yscale="log", xlabel=EIGENVALUE, ylabel=DENSITY, title="")
        for row, name, (color, _, dash) in zip(rows.to_dict("records"), shorts(rows[axis]), LINES, strict=False):
            heights = histogram(row["eigenvalues"], edges)
            panel.stairs(np.where(heights > 0, heights, np.nan), edges, color=color, linestyle=dash, linewidth=1.2,
                         baseline=None, label=f"{label(axis, unit=False)} {name}")
            if pd.notna(row["lambda_plus"]):
                panel.axvline(row["lambda_plus"], color=color, linestyle=":", linewidth=0.8)
        name_lines(figure, panel)
    return figure


def model_figure(name: str, layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Density of the eigenvalues of W^T W / N of each of ``layers``, one panel a matrix, in their order.

    A layer is a row of ``trials.weights.weight_rows`` with its name under ``layer`` and its ``eigenvalues`` (not all
    zero). Over it are drawn the Marchenko-Pastur bulk and, where alpha passes its gate, the power law of the tail.
    """
    title = f"{name}: spectra of its weight matrices"
    note = ("Bars: density of the eigenvalues; solid curve: Marchenko-Pastur bulk; dotted: its edge; triangles: "
            r"eigenvalues beyond the edge; dashed: power-law tail, where there is one, with its $\alpha$.")
    columns = min(len(layers), 2)
    with sheet(-(-len(layers) // columns), columns, title, note) as (figure, panels):
        for panel, row in zip(panels, layers, strict=False):
            _density(panel, dict(row), bin_edges(pd.Series([row["eigenvalues"]]), min(44, 8 + row["cols"] // 4)))
            words = f"{row['layer']} ({row['rows']} × {row['cols']})"
            panel.set_title((words if len(words) <= 56 else f"…{words[-55:]}").replace("$", r"\$") + "\n", fontsize=7.5)
            _few_ticks(panel)
            panel.set_ylabel(DENSITY)
            panel.set_xlabel(EIGENVALUE)
        for panel in panels[len(layers):]:
            panel.remove()
    return figure


def bin_edges(spectra: pd.Series, bins: int = 44) -> np.ndarray:
    """Log-spaced bins over the eigenvalues, but for those near 0, of which a square matrix has a few far below."""
    values = np.concatenate(list(spectra))
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):  # of a network that is 0
        return np.geomspace(0.1, 1, bins + 1)
    lowest = max(np.quantile(values, 0.02), 1e-6 * values.max())
    return np.geomspace(lowest, 1.001 * values.max(), bins + 1)


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Density in each bin, of all the values: those outside the bins count too."""
    return np.asarray(np.histogram(values, edges)[0] / (len(values) * np.diff(edges)))


def _apart(spectra: pd.Series) -> bool:
    """Whether on shared axes one of the spectra would fill less than a quarter of the width, or lose a quarter of its
    eigenvalues."""
    edges, each = bin_edges(spectra), [np.asarray(values, float) for values in spectra]
    own = [bin_edges(pd.Series([values])) for values in each]
    narrow = min(np.log(end[-1] / end[0]) for end in own) < 0.25 * np.log(edges[-1] / edges[0])
    return bool(narrow or max((values < edges[0]).mean() for values in each) > 0.25)


def _share_height(panels: Sequence[Axes]) -> None:
    """One range on y that holds the bars of all panels."""
    bars = [panel.patches[0] for panel in panels if panel.patches]
    heights = np.concatenate([[0.0], *(each.get_data()[0] for each in bars if isinstance(each, StepPatch))])
    if (heights > 0).any():
        panels[0].set_ylim(0.3 * heights[heights > 0].min(), 3 * heights.max())


def _few_ticks(panel: Axes) -> None:
    """Plain numbers where a log axis spans less than a decade."""
    for axis in (panel.xaxis, panel.yaxis):
        low, high = axis.get_view_interval()
        if high < 10 * low:
            axis.set_major_locator(MaxNLocator(4))
            axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.3g}"))
        axis.set_minor_formatter(NullFormatter())


def _density(panel: Axes, row: dict[str, Any], edges: np.ndarray) -> None:
    """One spectrum: histogram, bulk, edge and the eigenvalues beyond it."""
    values = np.asarray(row["eigenvalues"], float)
    heights = histogram(values, edges)
    if not heights.any():  # of a network that has collapsed, or blown up
        panel.set_title(f"all {len(values)} are 0 or infinite", loc="right", fontsize=7)
        return
    panel.stairs(heights, edges, fill=True, color=COLORS[5], alpha=0.5)
    panel.stairs(heights, edges, color=COLORS[0], linewidth=0.6)
    panel.set(xscale="log", yscale="log")
    panel.set_ylim(0.3 * heights[heights > 0].min(), 3 * heights.max())
    edge = row["lambda_plus"]
    inner = values[~(values > edge)] if pd.notna(edge) else values  # each eigenvalue is counted once
    counts = [f"{below} below the axis"] if (below := (inner < edges[0]).sum()) else []
    if pd.notna(edge):
        beyond = values[values > edge]
        x, density = marchenko_pastur(edge, row["cols"] / row["rows"], edges[0])
        panel.plot(x, density * (1 - len(beyond) / len(values)), color=COLORS[1])
        panel.axvline(edge, color=GREY, linestyle=":", linewidth=1)
        panel.plot(beyond, np.full(len(beyond), 0.035), transform=panel.get_xaxis_transform(), linestyle="none",
                   marker="^", markersize=3, color="black")
        counts.append(f"{len(beyond)} beyond $\\lambda_+$")
    if pd.notna(row.get("alpha")):
        _tail(panel, row, values)
        counts.append(f"$\\alpha$ = {row['alpha']:.2f}")
    panel.set_title(", ".join(counts), loc="right", fontsize=7)


def _tail(panel: Axes, row: dict[str, Any], values: np.ndarray) -> None:
    """The fitted power law (alpha - 1) / xmin (x / xmin)^-alpha, scaled to its share of the eigenvalues."""
    alpha, xmin = row["alpha"], row["alpha_xmin"]
    x = np.geomspace(xmin, values.max(), 100)
    density = row["alpha_tail"] / len(values) * (alpha - 1) / xmin * (x / xmin) ** -alpha
    panel.plot(x, density, color=COLORS[2], linestyle="--")


def marchenko_pastur(edge: float, ratio: float, lowest: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(x, density at x) of the Marchenko-Pastur law with upper edge ``edge`` and ``ratio`` = M / N, from its lower edge
    (or ``lowest``, for a log axis) to the upper one.

    rho(x) = sqrt((edge - x)(x - low)) / (2 pi sigma^2 ratio x), with edge, low = sigma^2 (1 +- sqrt ratio)^2
    (Marchenko & Pastur 1967).
    """
    variance = edge / (1 + ratio**0.5) ** 2
    low = variance * (1 - ratio**0.5) ** 2
    x = np.geomspace(max(low, lowest), edge, 400)
    return x, np.sqrt(np.maximum((edge - x) * (x - low), 0)) / (2 * np.pi * variance * ratio * x)
