"""The figure of a walk through the phases: which one each layer is in, along an axis and in the course of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from analysis.cells import cell_axes, labelled_layers, main_layer
from analysis.chance import at_chance
from analysis.figures.overview import counts, summary_figure
from analysis.figures.style import PHASE_LOOKS, called, label, name_lines, sheet, short
from analysis.laws.walk import Walk
from analysis.observe import phases_in_training
from analysis.phases import PHASES
from analysis.selection import Where, said, select
from analysis.studies import one_study
from analysis.tables import Frames
from trials.errors import UserError

LAYERS = 4  # rows of a panel, at most: those with the most eigenvalues
GAP = 0.14  # between rows


def phases_figure(tables: Frames, layer: str | None = None, *, where: Where | None = None,
                  title: str | None = None) -> Figure:
    """(a) The phase of each layer after training, by the swept axis; (b) that of ``layer`` in training, by step too.

    Each thin row of a cell is a trial; cells without a label are hatched. ``layer`` is by default the one of most
    eigenvalues; ``where`` keeps trials by their values: {"lr": 0.1}. Raises UserError for several
    studies, for a study that sweeps more than one axis beside the seed, or none; where no layer has two different
    phases; for an unknown layer.
    """
    tables = one_study(select(tables, where), "phases_figure")
    swept = [name for name in cell_axes(tables) if tables.trials[name].nunique(dropna=False) > 1]
    if len(swept) != 1:
        raise UserError(f"{tables.place}: phases are drawn along one axis, but {len(swept)} are swept; hold the "
                        "others by where, or map two by phase_map, with the column phase of observations")
    [axis] = swept
    ended = labelled_layers(tables).merge(tables.trials[["trial_id", axis]], on="trial_id")
    if ended["phase"].nunique() < 2:
        raise UserError(f"{tables.place}: there are no two different phases to draw")
    sizes = ended.dropna(subset="phase").groupby("layer", sort=False)["cols"].max()
    layers = [name for name in sizes.index if name in set(sizes.nlargest(LAYERS).index)]
    layer = layer or main_layer(ended[ended["layer"].isin(layers)])
    history = phases_in_training(tables, layer).merge(tables.trials[["trial_id", axis]], on="trial_id")
    if history.empty:
        raise UserError(f"{tables.place}: no layer called {layer!r}")
    order = _by_seed(tables, ended["trial_id"])
    values = sorted(ended[axis].unique())
    trials = tables.trials[tables.trials["trial_id"].isin(ended["trial_id"])]
    note = f"{tables.name}: {counts(tables.trials, int(at_chance(tables).sum()))}{said(where)} Thin rows: trials"
    note += f", of {trials[axis].value_counts().max()} seeds." if trials[axis].duplicated().any() else "."
    title = title or f"Phases of training, by {label(axis, unit=False)}"
    with sheet(1, 2, title, note, width_ratios=(1, 1.25)) as (figure, (left, right)):
        _by_axis(left, ended[ended["layer"].isin(layers)], axis, values, layers, order)
        _in_training(right, history, axis, values, order)
        left.set_title("(a) after training")
        right.set_title(f"(b) {called(layer)} in training")
        seen = {*ended.loc[ended["layer"].isin(layers), "phase"].fillna("none"), *history["phase"].fillna("none")}
        _name(left, seen)
        name_lines(figure, left)
    return figure


def headline_figure(tables: Frames, layer: str | None = None) -> Figure:
    """The one figure of a study: its phases, where it walks through some along one axis, else what its axes do."""
    tables = one_study(tables, "headline_figure")
    try:
        return phases_figure(tables, layer)
    except UserError:
        return summary_figure(tables)


def walk_figure(fit: Walk) -> Figure:
    """The labels that a claim was judged by: along an axis the shares of phases at each value; in training, at each
    step, those of all trials, each by its latest label, after its end by the last."""
    rows = fit.rows.assign(phase=fit.rows["phase"].fillna("none"))
    if fit.x == "step":
        latest = rows.pivot(index="trial_id", columns="step", values="phase").ffill(axis=1)
        rows = latest.melt(value_name="phase", ignore_index=False).dropna()
        what = f"{len(latest)} trials, each by its latest label (after its end by its last)"
    else:
        what = f"trials, {rows.groupby(fit.x).size().min()} or more a value" if len(rows) else "trials"
    shares = rows.groupby(fit.x)["phase"].value_counts(normalize=True).unstack(fill_value=0.0)
    note = f"rank correlation {fit.estimates['rank_correlation']} ({fit.method}). Heights: shares of the {what}."
    with sheet(1, 1, f"Phases by {label(fit.x, unit=False)}", note) as (figure, [panel]):
        for place, (_, row) in enumerate(shares.iterrows()):
            low = 0.0
            for name in (*PHASES, "none"):
                if row.get(name, 0) > 0:
                    _fill(panel, [(place - 0.46, place + 0.46, low, low + row[name])], name)
                    low += row[name]
        ticks = np.arange(0, len(shares), -(-len(shares) // 10))
        decades = np.flatnonzero([step == 0 or np.log10(step).is_integer() for step in map(float, shares.index)])
        ticks = decades if fit.x == "step" and len(decades) > 2 else ticks
        panel.set(xlabel=label(fit.x), ylabel="share of trials", title="", xlim=(-0.6, len(shares) - 0.4), ylim=(0, 1),
                  xticks=ticks, xticklabels=[short(shares.index[tick]) for tick in ticks])
        panel.grid(False)
        _name(panel, set(shares))
        name_lines(figure, panel)
    return figure


def _by_seed(tables: Frames, ids: pd.Series) -> dict[str, int]:
    """The place of each trial among those that differ from it in the seed alone."""
    trials = tables.trials[tables.trials["trial_id"].isin(ids)].sort_values([*tables.axes, "trial_id"])
    return dict(zip(trials["trial_id"], trials.groupby(cell_axes(tables), observed=True).cumcount(), strict=True))


def _by_axis(panel: Axes, ended: pd.DataFrame, axis: str, values: Sequence[object], layers: Sequence[str],
             order: dict[str, int]) -> None:
    for row, layer in enumerate(reversed(layers)):
        for column, value in enumerate(values):
            cell = ended[(ended["layer"] == layer) & (ended[axis] == value)]
            _rows(panel, cell, [(column - 0.46, column + 0.46)] * len(cell), row, order)
    panel.set(xlabel=label(axis), xlim=(-0.6, len(values) - 0.4), ylim=(-0.55, len(layers) - 0.45),
              xticks=range(len(values)), yticks=range(len(layers)), yticklabels=list(reversed(layers)))
    stride = 1 if sum(len(short(value)) for value in values) < 34 else 2
    panel.set_xticklabels([short(value) if place % stride == 0 else "" for place, value in enumerate(values)])
    panel.grid(False)
    panel.tick_params(length=0)


def _in_training(panel: Axes, history: pd.DataFrame, axis: str, values: Sequence[object], order: dict[str, int]
                 ) -> None:
    """Steps on a log axis, with step 0 at its left end; each label reaches halfway to its neighbours."""
    at = np.log10(history["step"].clip(lower=0.4))
    for row, value in enumerate(values):
        for _, trial in history.assign(at=at)[history[axis] == value].groupby("trial_id"):
            trial = trial.sort_values("step")
            places = trial["at"].to_numpy()
            middle = (places[1:] + places[:-1]) / 2
            edges = np.concatenate([[places[0] - 0.12], middle, [places[-1] + 0.06]])
            _rows(panel, trial, list(pairwise(edges)), row, order)
    top = int(np.floor(at.max()))
    ticks = [np.log10(0.4), *range(top + 1)]
    names = ["0", *(f"{10**power:,}" for power in range(top + 1))]
    panel.set(xlabel="optimizer steps", ylabel=label(axis), xlim=(np.log10(0.4) - 0.16, at.max() + 0.1), xticks=ticks,
              xticklabels=names, ylim=(-0.55, len(values) - 0.45), yticks=range(len(values)),
              yticklabels=[short(value) for value in values])
    panel.grid(False)
    panel.tick_params(length=0)


def _rows(panel: Axes, labels: pd.DataFrame, across: Sequence[tuple[float, float]], row: int, order: dict[str, int]
          ) -> None:
    """The labels of a cell at height ``row``: a thin row for each trial, from the top; each label is as wide as its
    part of ``across``."""
    count = max(order.values()) + 1
    height = (1 - GAP) / count
    for trial_id, phase, (left, right) in zip(labels["trial_id"], labels["phase"].fillna("none"), across, strict=True):
        top = row + (1 - GAP) / 2 - order[trial_id] * height
        _fill(panel, [(left, right, top - height, top)], phase)


def _fill(panel: Axes, boxes: Iterable[tuple[float, float, float, float]], phase: str) -> None:
    """Boxes (left, right, low, high) in the look of a phase."""
    color, hatch = PHASE_LOOKS[phase]
    corners = [[(left, low), (right, low), (right, high), (left, high)] for left, right, low, high in boxes]
    panel.add_collection(PolyCollection(corners, facecolors=color, edgecolors="white" if not hatch else "#999999",
                                        linewidths=0.25, hatch=hatch), autolim=False)


def _name(panel: Axes, seen: set[str]) -> None:
    """Entries of the legend, in the order of the phases."""
    for name in (*PHASES, "none"):
        if name in seen:
            color, hatch = PHASE_LOOKS[name]
            panel.add_collection(PolyCollection([], facecolors=color, edgecolors="#999999" if hatch else color,
                                                linewidths=0.25, hatch=hatch,
                                                label="no label" if name == "none" else name), autolim=False)
