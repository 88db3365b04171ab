"""How much of a metric is chance: its spread over seeds within a cell, against that between cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from analysis.cells import cell_axes, last_layers
from analysis.chance import at_chance
from analysis.estimates import LEVEL, Estimate
from analysis.figures.style import (
    COLORS,
    GREY,
    called,
    is_numeric,
    label,
    make_log,
    name_lines,
    sheet,
    short,
    spans_decades,
)
from analysis.selection import Where, said, select
from analysis.tables import Frames
from trials.errors import UserError, did_you_mean
from trials.records import FINISHED

MOST = 60  # cells that can be told apart side by side


def replicate_spread(tables: Frames, metric: str, layer: str | None = None, *, where: Where | None = None,
                     title: str | None = None) -> Figure:
    """(a) Every trial, by cell (trials that differ in the seed alone), cells in the order of their means; (b) the
    standard deviation of each cell against its mean, beside the pooled one and that between cells.

    ``metric`` is as in ``by_trial``, or a column of ``layer``. At most 60 cells are drawn, evenly picked; the
    note gives the share of the variance that is between cells, all of them. A metric that spans decades is treated
    in logarithms. ``where`` keeps trials by their values: {"lr": 0.1}. Raises UserError for an unknown metric or
    value, fewer than two cells, and where no cell has two finished trials.
    """
    tables = select(tables, where)
    metric = f"{layer}.{metric}" if layer else metric
    axes = cell_axes(tables)
    trials = by_trial(tables, metric).dropna(subset=[metric])
    trials["cell"] = trials.groupby(axes, dropna=False, observed=True).ngroup() if axes else 0
    log = spans_decades(trials[metric])
    numbers = np.log(trials[metric]) if log else trials[metric]
    cells = numbers.groupby(trials["cell"]).agg(["mean", "std"]).sort_values("mean", kind="stable")
    cells["mean"] = np.exp(cells["mean"]) if log else cells["mean"]
    if len(cells) < 2 or len(trials) == len(cells):
        raise UserError(f"{tables.place}: {metric} of {len(trials)} finished trials in {len(cells)} cells says nothing "
                        "about seeds; sweep an axis, and seed: {replicates: 3}")
    shown = cells.iloc[np.unique(np.linspace(0, len(cells) - 1, min(MOST, len(cells))).round().astype(int))]
    part = f"{len(cells)} cells ({', '.join(label(axis, unit=False) for axis in axes)})"
    part += f", of which {len(shown)} are drawn, evenly picked" if len(shown) < len(cells) else ""
    share = intraclass_correlation(numbers, trials["cell"])
    lost = int(at_chance(tables).sum())
    note = (f"{len(trials)} finished trials{f', {lost} of them at chance,' * (lost > 0)} in {part}.{said(where)} Dots: "
            "trials; dashes: "
            f"{'geometric ' if log else ''}means. Share of the variance{' of logarithms' if log else ''} that is "
            f"between cells (intraclass correlation): {share}.")
    name = named(metric).partition("  ")[0]
    title = title or f"{tables.name}: {name}, over seeds and between cells"
    with sheet(1, 2, title, note) as (figure, (strips, spread)):
        place = pd.Series(range(len(shown)), index=shown.index)
        drawn = trials[trials["cell"].isin(shown.index)]
        strips.plot(drawn["cell"].map(place), drawn[metric], linestyle="none", marker="o", color=COLORS[0], alpha=0.6,
                    markersize=3, markeredgewidth=0)
        strips.plot(place, shown["mean"], linestyle="none", marker="_", color="black", markersize=6)
        strips.set(xlabel=f"{label(axes[0], unit=False) if len(axes) == 1 else 'cells'}, by mean",
                   ylabel=named(metric).replace("  ", "\n"), xticks=[])
        strips.grid(False, axis="x")
        if len(shown) <= 20:
            first = trials.groupby("cell")[axes].first().loc[shown.index]
            names = [", ".join(map(short, values)) for values in first.itertuples(index=False)]
            strips.set_xticks(place, names, rotation=90 if max(map(len, names)) > 40 / len(names) else 0)
        _spread(spread, numbers, trials["cell"], shown)
        spread.set(xlabel=f"cell mean of {name}", ylabel=f"standard deviation{' of ln' if log else ''}")
        if log:
            make_log(strips, "y")
            make_log(spread, "x")
        name_lines(figure, spread)
    return figure


def intraclass_correlation(values: pd.Series, cells: pd.Series) -> Estimate:
    """The share of the variance of ``values`` that is between ``cells``, at least 0; NaN if all are equal.

    One-way analysis of variance with a random effect of the cell, (B - W) / (B + (n - 1) W) for mean squares B between
    and W within cells and n trials a cell; its interval is that of the F distribution (Shrout & Fleiss 1979), exact if
    errors are normal, as large in each cell, and cells equally large. If not, n is as in Donner 1986.
    """
    between, within, size = _mean_squares(values, cells)
    count = cells.nunique()
    quantiles = stats.f.ppf([0.5 + LEVEL / 2, 0.5 - LEVEL / 2], count - 1, len(values) - count)
    if between + within == 0:
        return Estimate(np.nan, np.nan, np.nan)
    share, low, high = (max(0.0, (between - scale * within) / (between + (size - 1) * scale * within))
                        for scale in (1.0, *quantiles))
    return Estimate(share, low, high)


def by_trial(tables: Frames, metric: str) -> pd.DataFrame:
    """The trials table, with ``metric`` as numbers: null for trials that did not finish, and where it is infinite.

    ``metric`` is a column of trials, or ``LAYER.column`` for one of ``layers`` at the last measured step. Raises
    UserError where there is no such number.
    """
    trials = tables.trials.copy()
    layer, _, column = metric.rpartition(".")
    if layer:
        rows = last_layers(tables, [column])
        if layer not in set(rows["layer"]):
            raise UserError(f"{tables.place}: no layer called {layer!r}; {did_you_mean(layer, set(rows['layer']))}")
        trials[metric] = trials["trial_id"].map(rows[rows["layer"] == layer].set_index("trial_id")[column])
    elif metric not in trials:
        raise UserError(f"{tables.place}: no column called {metric!r} in trials (a number of a layer is "
                        f"LAYER.column); {did_you_mean(metric, trials.columns)}")
    if not is_numeric(trials[metric]):
        raise UserError(f"{tables.place}: {metric} is no number; choose one of the columns that are")
    finite = np.isfinite(trials[metric].astype(float))
    trials[metric] = trials[metric].astype(float).where(trials["status"].isin(FINISHED) & finite)
    return trials


def named(metric: str) -> str:
    """What a metric of ``by_trial`` is called on an axis: words, two spaces and its symbol, if it has one."""
    layer, _, column = metric.rpartition(".")
    words, gap, symbol = label(column).partition("  ")
    return f"{words}{f' of {called(layer)}' if layer else ''}{gap}{symbol}"


def _mean_squares(values: pd.Series, cells: pd.Series) -> tuple[float, float, float]:
    """(Between cells, within them; trials a cell, reduced where cells differ in size)."""
    size = values.groupby(cells).size()
    means = values.groupby(cells).transform("mean")
    between = ((means - values.mean()) ** 2).sum() / (len(size) - 1)
    within = ((values - means) ** 2).sum() / (len(values) - len(size))
    return float(between), float(within), float((len(values) - (size**2).sum() / len(values)) / (len(size) - 1))


def _spread(panel: Axes, values: pd.Series, cells: pd.Series, shown: pd.DataFrame) -> None:
    """Each cell's standard deviation at its mean; lines at the pooled one and at that between cells."""
    between, within, size = _mean_squares(values, cells)
    replicated = shown.dropna()
    panel.plot(replicated["mean"], replicated["std"], linestyle="none", marker="o", color=COLORS[0], markersize=3,
               label="within a cell")
    panel.axhline(within**0.5, color=GREY, label="within, pooled")
    panel.axhline((max(0.0, between - within) / size) ** 0.5, color=COLORS[1], linestyle="--", label="between cells")
    if spans_decades([*replicated["std"], between - within]):
        make_log(panel, "y")
