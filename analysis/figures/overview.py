"""The figure of a study: what its axes do to spectra and accuracy, as curves over one axis or as maps over two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.cells import cell_axes, ends, last_layers
from analysis.chance import at_chance
from analysis.figures.style import (
    COLORS,
    GREY,
    LINES,
    called,
    is_numeric,
    label,
    log_spaced,
    make_log,
    make_log_from_zero,
    name_decades,
    name_lines,
    name_numbers,
    plain,
    sheet,
    short,
    shorts,
    spans_decades,
)
from analysis.selection import Where, said, select
from analysis.studies import one_study
from analysis.tables import Frames
from trials.records import FINISHED


def summary_figure(tables: Frames, layers: Sequence[str] | None = None, *, where: Where | None = None,
                   title: str | None = None) -> Figure:
    """The study at one look, at the end of training.

    With one swept axis beside the seed: stable rank, MP soft rank and alpha of ``layers`` (by default all, at most the
    seven with the most eigenvalues), and accuracies (losses in a regression), each trial a faint dot, the means a line.
    With more: maps over the first two numeric axes of test accuracy (or loss), of the first of ``layers`` (by default
    the widest) and of the fraction of trials that diverged. ``where`` keeps trials by their values: {"lr": 0.1}. Raises
    UserError for a layer that no finished trial has, and a value that no trial has.
    """
    tables = one_study(select(tables, where), "summary_figure")
    swept = [axis for axis in cell_axes(tables) if tables.trials[axis].nunique(dropna=False) > 1]
    if len(swept) < 2:
        return _curves(tables, layers, swept[0] if swept else "study", said(where), title)
    numeric = [axis for axis in swept if is_numeric(tables.trials[axis])]
    x, y, *others = [*numeric, *(axis for axis in swept if axis not in numeric)]
    return _maps(tables, layers and layers[:1], x, y, others, said(where), title)


def _curves(tables: Frames, layers: Sequence[str] | None, axis: str, held: str, title: str | None) -> Figure:
    if layers is None:
        sizes = last_layers(tables, ()).groupby("layer", sort=False)["cols"].max()
        layers = [layer for layer in sizes.index if layer in sizes.nlargest(len(LINES)).index]
    (trials, layers), lost = ends(tables, layers), int(at_chance(tables).sum())
    trials["study"] = tables.name
    least = min(2, trials[axis].nunique())  # at one value of several there is nothing to see
    metrics = [metric for metric in ("stable_rank", "mp_softrank", "alpha")
               if any(trials.loc[trials[f"{layer}.{metric}"].notna(), axis].nunique() >= least for layer in layers)]
    quantity = "error" if trials["test_accuracy"].notna().any() else "loss"  # accuracies near 1 look all the same
    trials = trials.assign(train_error=1 - trials["train_accuracy"], test_error=1 - trials["test_accuracy"])
    columns = 2 if (count := len(metrics) + 1) == 4 else count
    numeric = is_numeric(trials[axis])
    title = title or f"{tables.name}: after training, by {label(axis, unit=False)}"
    note = f"{counts(trials, lost)}{held} Small dots: single trials; {'lines' if numeric else 'large'}: their means."
    if (trials["status"] == "diverged").any():
        note += " Crosses: some trials diverged."
    if layers:
        some = any(trials[f"{layer}.alpha"].notna().any() for layer in layers)
        note += r" $\alpha$: only where the tail is a power law" + (
            "." if "alpha" in metrics else f", as at one {label(axis, unit=False)} alone." if some else
            ", as none is here.")
    with sheet(-(-count // columns), columns, title, note) as (figure, panels):
        *spectral, training = panels
        for panel, metric in zip(spectral, metrics, strict=True):
            for layer, look in zip(layers, LINES, strict=False):
                _line(panel, trials, axis, f"{layer}.{metric}", layer, look)
            _finish(panel, trials[axis], axis, metric)
        for part, look in (("train", (COLORS[5], "D", "--")), ("test", (COLORS[6], "o", "-"))):
            _line(training, trials, axis, f"{part}_{quantity}", part, look)
        _cross_out(training, trials, axis)
        _finish(training, trials[axis], axis, quantity)
        training.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1, columnspacing=1.2)
        if spectral:
            name_lines(figure, spectral[0])
    return figure


def positions_of(values: pd.Series) -> pd.Series:
    """Where values go on an axis: numbers where they are, categories one after another in sorted order."""
    return values if is_numeric(values) else values.map(plain).rank(method="dense") - 1


def place(panel: Axes, which: Literal["x", "y"], values: pd.Series) -> None:
    """The scale of an axis for these values, and the names of categories."""
    if is_numeric(values):
        if log_spaced(values.drop_duplicates()):
            make_log(panel, which)
        return
    names = values.groupby(positions_of(values)).first()
    panel.set(**{f"{which}ticks": names.index, f"{which}ticklabels": [short(name) for name in names],
                 f"{which}lim": (-0.5, len(names) - 0.5)})


def _line(panel: Axes, trials: pd.DataFrame, axis: str, column: str, name: str, look: tuple[str, str, str]) -> None:
    """Every trial as a dot, and the means as a line (unjoined for categories)."""
    color, marker, dash = look
    x = positions_of(trials[axis])
    mean = trials[column].groupby(x, observed=True).mean().dropna()
    panel.plot(x, trials[column], linestyle="none", marker=marker, color=color, alpha=0.35, markersize=2.5,
               markeredgewidth=0)
    panel.plot(mean.index, mean, linestyle=dash if is_numeric(trials[axis]) else "none", marker=marker, color=color,
               label=name, markeredgecolor="white", markeredgewidth=0.5)


def _cross_out(panel: Axes, trials: pd.DataFrame, axis: str) -> None:
    """A cross at the foot wherever a trial diverged."""
    if len(x := positions_of(trials[axis])[trials["status"] == "diverged"].unique()):
        panel.plot(x, np.full(len(x), 0.03), transform=panel.get_xaxis_transform(), linestyle="none", marker="x",
                   color=GREY, markersize=4)


def _finish(panel: Axes, values: pd.Series, axis: str, name: str) -> None:
    """Scales, ticks and labels."""
    shown = np.concatenate([line.get_ydata() for line in panel.lines if line.get_marker() != "x"])
    if spans_decades(shown):
        make_log(panel, "y")
    elif name == "error" and spans_decades(shown[shown > 0]):  # none at all has a place too
        make_log_from_zero(panel, shown)
    panel.set_ylabel("error (1 - accuracy)" if name == "error" else label(name))
    panel.set_xlabel("" if axis == "study" else label(axis))
    place(panel, "x", values)
    if not is_numeric(values):
        return
    # The same range in all panels, also where a metric is at some values only.
    panel.update_datalim([(end, panel.dataLim.y0) for end in (values.min(), values.max())], updatey=False)
    panel.autoscale_view(scaley=False)
    if len(ticks := np.sort(values.unique())) <= 12:
        panel.set_xticks(ticks, thinned(panel, ticks))
        panel.xaxis.set_minor_locator(NullLocator())


def thinned(panel: Axes, ticks: np.ndarray) -> list[str]:
    """Labels of ``ticks``, those blanked that would touch the one before."""
    characters = 17 * panel.bbox.width / panel.figure.dpi  # that fit side by side
    at = panel.transAxes.inverted().transform(panel.transData.transform(np.column_stack([ticks, ticks])))[:, 0]
    end, kept = -np.inf, []
    for place, text in zip(at * characters, shorts(ticks), strict=True):
        free = place - len(text) / 2 > end + 0.7
        kept.append(text if free else "")
        end = place + len(text) / 2 if free else end
    return kept


def _maps(tables: Frames, layers: Sequence[str] | None, x: str, y: str, others: Sequence[str], held: str,
          title: str | None) -> Figure:
    (trials, layers), lost = ends(tables, layers), int(at_chance(tables).sum())
    trials["diverged"] = (trials["status"] == "diverged").where(trials["status"] != "failed").astype(float)
    quantity = "test_accuracy" if trials["test_accuracy"].notna().any() else "test_loss"
    panes = {quantity: label(quantity)}
    for layer in layers[:1]:
        panes[f"{layer}.stable_rank"] = f"stable rank of {called(layer)}"
        if not trials["diverged"].any():
            panes[f"{layer}.mp_softrank"] = f"MP soft rank of {called(layer)}"
    if trials["diverged"].any() or not layers:
        panes["diverged"] = "fraction diverged"
    grid = 2 * len(trials[[x, y]].drop_duplicates()) >= trials[x].nunique() * trials[y].nunique()
    note = f"{counts(trials, lost)}{held} {'Means over all trials of a cell' if grid else 'A point a trial'}"
    if others:
        note += f"{', pooled over' if grid else '; not shown:'} {', '.join(label(axis, unit=False) for axis in others)}"
    hollow = trials[list(panes)].isna().any(axis=None)
    note += f". {'Hatched' if grid else 'Crosses'}: no trial has this number." if hollow else "."
    title = title or f"{tables.name}: after training, by {label(x, unit=False)} and {label(y, unit=False)}"
    with sheet(1, len(panes), title, note) as (figure, panels):
        for panel, (column, shown) in zip(panels, panes.items(), strict=True):
            fraction = column == "diverged"
            norm = Normalize(0, 1) if fraction else LogNorm() if spans_decades(trials[column]) else Normalize()
            draw = _map if grid else _scatter
            drawn = draw(panel, trials, x, y, column, norm=norm, cmap="Greys" if fraction else "viridis")
            bar = figure.colorbar(drawn, ax=panel, location="bottom", aspect=30, pad=0.03)
            name_decades(bar) if isinstance(drawn.norm, LogNorm) else name_numbers(bar)
            panel.set_title(f"{panel.get_title(loc='left')} {shown}")
            panel.set_xlabel(label(x))
            panel.grid(False)
        panels[0].set_ylabel(label(y))
    return figure


def _map(panel: Axes, trials: pd.DataFrame, x: str, y: str, column: str, **colors: Any) -> ScalarMappable:
    """The means of ``column``, a cell for each pair of values; hatched where no trial has any."""
    table = trials.groupby([y, x], dropna=False, observed=True)[column].mean().unstack(x)
    drawn = panel.pcolormesh(table.to_numpy(float), edgecolors="white", linewidth=0.4, **colors)
    panel.patch.set(hatch="////", edgecolor="#bbbbbb")
    panel.spines[:].set_visible(True)
    panel.tick_params(length=0)
    _tick(panel.xaxis, table.columns, 6)
    _tick(panel.yaxis, table.index, 10)
    if max(table.shape) <= 7:
        _write_numbers(panel, table, drawn, column != "diverged")
    return drawn


def _scatter(panel: Axes, trials: pd.DataFrame, x: str, y: str, column: str, **colors: Any) -> ScalarMappable:
    """Every trial as a point, a cross where it has no value: for designs that fill a space without a grid."""
    known = trials[column].notna()
    at_x, at_y = positions_of(trials[x]), positions_of(trials[y])
    drawn = panel.scatter(at_x[known], at_y[known], c=trials.loc[known, column], s=10, edgecolors=GREY, linewidths=0.3,
                          **colors)
    panel.scatter(at_x[~known], at_y[~known], marker="x", color=GREY, s=8, linewidths=0.7)
    place(panel, "x", trials[x])
    place(panel, "y", trials[y])
    return drawn


def _tick(axis: Axis, values: pd.Index, most: int) -> None:
    """Name the rows or columns of a map, at most ``most`` of them."""
    stride = -(-len(values) // most)
    axis.set_ticks(np.arange(0, len(values), stride) + 0.5, labels=shorts(values[::stride]))


def _write_numbers(panel: Axes, table: pd.DataFrame, drawn: ScalarMappable, spread: bool) -> None:
    """The value of each cell, in black or white, whichever is seen better.

    All have as many decimals: two figures of the largest, or up to four where it takes these to see the differences
    that colours show (``spread``, where their scale is that of the values); what is too small for that has one colour.
    """
    values = table.to_numpy(float)
    decimals = max(0, 1 - int(np.floor(np.log10(np.nanmax(np.abs(values), initial=1e-9)))))
    low, high = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=-np.inf)
    if spread and low <= high and not isinstance(drawn.norm, LogNorm):
        needed = 1 - int(np.floor(np.log10(high - low))) if high > low else 0
        decimals = min(max(decimals, needed), decimals + 2)
        if high - low < 10.0**-decimals:
            drawn.set_clim((low + high) / 2 - 5 * 10.0**-decimals, (low + high) / 2 + 5 * 10.0**-decimals)
    for (row, column), value in np.ndenumerate(table.to_numpy(float)):
        if np.isfinite(value):
            light = np.dot(drawn.to_rgba(value)[:3], (0.299, 0.587, 0.114)) > 0.5
            text = f"{value:.2g}" if isinstance(drawn.norm, LogNorm) else f"{value:.{decimals}f}"
            panel.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=6,
                       color="black" if light else "white")


def counts(trials: pd.DataFrame, lost: int = 0) -> str:
    """``60 trials: 54 finished (1 at chance), 6 diverged.``; ``lost`` are those at chance."""
    finished = trials["status"].isin(FINISHED).sum()
    chance = f" ({lost} at chance)" if lost else ""
    rest = [f"{count} {status}" for status in ("diverged", "failed") if (count := (trials["status"] == status).sum())]
    return f"{len(trials)} trials: {', '.join([f'{finished} finished{chance}', *rest])}."
