"""A number against an axis, and whether it rises or falls."""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.estimates import describe
from analysis.figures.style import COLORS, label, log_spaced, make_log, sheet
from analysis.laws.trend import Trend


def trend_figure(fit: Trend) -> Figure:
    """Rows as faint dots, the means that are ranked as a line."""
    title = f"{label(fit.y, unit=False).partition('  ')[0]}, by {label(fit.x, unit=False)}"
    note = f"{describe(fit.estimates)} ({fit.method}). Small dots: {len(fit.rows)} rows; line: their means."
    with sheet(1, 1, title, note) as (figure, [panel]):
        panel.plot(fit.rows[fit.x], fit.rows[fit.y], linestyle="none", marker="o", color="black", alpha=0.35,
                   markersize=2.5, markeredgewidth=0)
        panel.plot(fit.data[fit.x], fit.data[fit.y], marker="o", color=COLORS[0])
        panel.set(xlabel=label(fit.x), ylabel=label(fit.y), title="")
        if log_spaced(fit.data[fit.x]):
            make_log(panel, "x")
    return figure
