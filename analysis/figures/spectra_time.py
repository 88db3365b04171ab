"""A spectrum as it forms: the density of one layer's eigenvalues over the steps of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import last_layers, main_layer
from analysis.figures.esd import bin_edges
from analysis.figures.phase_map import cell_edges, set_scale
from analysis.figures.style import COLORS, called, label, make_log, name_lines, sheet, short
from analysis.selection import Where, select
from analysis.studies import one_study
from analysis.tables import Frames
from trials.errors import UserError, did_you_mean

FIX = "set measure.eigenvalues to log and run again"


def spectra_over_time(tables: Frames, layer: str | None = None, trial_id: str | None = None, *,
                      where: Where | None = None, title: str | None = None) -> Figure:
    """Density of ln lambda, eigenvalues of W^T W / N of ``layer``, at each step where they were kept; step 0 at the
    left edge.

    Over it: ``lambda_plus``, the edge of the Marchenko-Pastur bulk (MP edge), ``lambda_max``, and the eigenvalues
    beyond the edge. A single trial, never a pool of several: ``trial_id``, by default the first, in the order of the
    axes, of those with most steps (and the values in ``where``: {"lr": 0.1}). ``layer`` is the widest hidden one by
    default. Raises UserError where eigenvalues were kept at fewer than two steps, and for an unknown layer, trial or
    value.
    """
    tables = one_study(select(tables, where), "spectra_over_time")
    rows = _steps(tables, layer, trial_id)
    first = rows.iloc[0]
    layer, trial_id = first["layer"], first["trial_id"]
    edges = bin_edges(rows["eigenvalues"], int(min(60, 8 + first["cols"] // 4)))
    trial = tables.trials.set_index("trial_id").loc[trial_id]
    settings = ", ".join(f"{label(axis, unit=False)} {short(trial[axis])}" for axis in tables.axes)
    note = (f"{tables.name}: a single trial ({settings or trial_id}), {len(rows)} steps. Shade: share of its "
            r"eigenvalues per unit of $\ln\lambda$; triangles: eigenvalues beyond the edge.")
    title = title or f"spectrum of {called(layer)} ({first['rows']:.0f} × {first['cols']:.0f}) in training"
    with sheet(1, 1, title, note) as (figure, (panel,)):
        panel.set_title("")
        panel.grid(False)
        panel.plot(rows["step"], rows["lambda_max"], color="black", marker="o", markersize=2.5,
                   label=r"$\lambda_{\max}$")
        panel.plot(rows["step"], rows["lambda_plus"], color=COLORS[1], linestyle="--",
                   label=r"MP edge  $\lambda_+$")
        set_scale(panel, "x", rows["step"])
        density = np.column_stack([np.histogram(values, edges)[0] / len(values) / np.diff(np.log(edges))
                                   for values in rows["eigenvalues"]])
        across = cell_edges(panel.xaxis, rows["step"])
        shade = panel.pcolormesh(across, edges, np.ma.masked_equal(density, 0), cmap="Blues", vmin=0, zorder=0)
        _beyond(panel, rows)
        panel.set(xlim=across[[0, -1]], ylim=(edges[0], 1.5 * edges[-1]), xlabel="optimizer steps",
                  ylabel=r"eigenvalue  $\lambda$  of  $W^TW/N$")
        make_log(panel, "y")
        figure.colorbar(shade, ax=panel, aspect=30, pad=0.03, label=r"density of  $\ln\lambda$")
        name_lines(figure, panel)
    return figure


def _steps(tables: Frames, layer: str | None, trial_id: str | None) -> pd.DataFrame:
    """A row for each step of one trial and layer where eigenvalues were kept."""
    key = ["trial_id", "step", "layer"]
    stored = tables.table("spectra", key)
    kept = tables.table("layers", [*key, "rows", "cols", "lambda_plus", "lambda_max"]).merge(stored, on=key)
    if kept.empty:
        raise UserError(f"{tables.place}: no eigenvalues were kept; {FIX}")
    if layer is None:
        shown = last_layers(tables, ())
        layer = main_layer(shown[shown["layer"].isin(kept["layer"])] if len(shown) else kept)
    kept = kept[kept["layer"] == layer]
    if kept.empty:
        raise UserError(f"{tables.place}: no spectra of a layer called {layer!r}; "
                        f"{did_you_mean(layer, set(stored['layer']))}")
    steps = kept.groupby("trial_id")["step"].nunique()
    if trial_id is None:
        ordered = tables.trials.sort_values(tables.axes)["trial_id"] if tables.axes else tables.trials["trial_id"]
        trial_id = steps.reindex(ordered[ordered.isin(steps.index)]).idxmax()
    elif trial_id not in steps:
        raise UserError(f"{tables.place}: no spectra of {layer} in a trial {trial_id!r}; "
                        f"{did_you_mean(trial_id, steps.index)}")
    if steps[trial_id] < 2:
        raise UserError(f"{tables.place}: eigenvalues of {layer} were kept at one step only; {FIX}")
    kept = kept[kept["trial_id"] == trial_id].sort_values("step")
    spectra = tables.table("spectra", ["step", "eigenvalues"],
                           (pc.field("layer") == layer) & (pc.field("trial_id") == trial_id))
    return kept.merge(spectra, on="step")


def _beyond(panel: Axes, rows: pd.DataFrame) -> None:
    """Each eigenvalue between the edge and the largest as a triangle."""
    points = [(row["step"], value) for row in rows.to_dict("records") for value in row["eigenvalues"]
              if row["lambda_plus"] < value < row["lambda_max"]]
    if points:
        panel.plot(*np.transpose(points), linestyle="none", marker="^", markersize=2, color="black", markeredgewidth=0)
