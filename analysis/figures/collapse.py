"""Curves for several values of a scale: as they are, and with the scale divided out."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimates import describe
from analysis.figures.style import LINES, label, make_log, name_lines, sheet, spans_decades
from analysis.laws.collapse import Collapse

SHOWN = len(LINES)  # curves


def collapse_figure(fit: Collapse) -> Figure:
    """(a) y over x, a line for each value of the scale (at most 7, evenly picked); (b) over x / scale^exponent,
    with the master curve in grey."""
    scales = sorted(fit.data[fit.scale].unique())
    picked = [scales[round(place * (len(scales) - 1) / max(1, min(SHOWN, len(scales)) - 1))]
              for place in range(min(SHOWN, len(scales)))]
    title = f"{label(fit.y, unit=False).partition('  ')[0]}, {label(fit.scale, unit=False)} divided out"
    exponent = fit.estimates["exponent"]
    note = f"{describe(fit.estimates)} ({fit.method}). {len(fit.data)} rows; grey: the master curve."
    with sheet(1, 2, title, note) as (figure, (plain, collapsed)):
        _lines(plain, fit, picked, fit.x, fit.y)
        plain.set(xlabel=label(fit.x), ylabel=label(fit.y))
        master = fit.data.sort_values("collapsed_x")
        offset = master["collapsed_y"] / master[fit.y]
        collapsed.plot(master["collapsed_x"], master["fitted"] * offset, color="#bbbbbb", linewidth=4)
        _lines(collapsed, fit, picked, "collapsed_x", "collapsed_y")
        collapsed.set(xlabel=f"{label(fit.x, unit=False)} / {label(fit.scale, unit=False)}$^{{{exponent.value:.2f}}}$")
        name_lines(figure, plain)
    return figure


def _lines(panel: Axes, fit: Collapse, scales: list[float], x: str, y: str) -> None:
    for scale, (color, marker, dash) in zip(scales, LINES, strict=False):
        means = fit.data[fit.data[fit.scale] == scale].groupby(x)[y].mean()
        panel.plot(means.index, means, color=color, marker=marker, linestyle=dash, markersize=3,
                   label=f"{label(fit.scale, unit=False)} {scale:.4g}")
    if spans_decades(fit.data[x]):
        make_log(panel, "x")
    if spans_decades(fit.data[y]):
        make_log(panel, "y")
