"""A law over its data, with its band, beside other laws; and what it leaves unexplained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimates import describe
from analysis.figures.style import COLORS, GREY, LINES, label, log_spaced, make_log, name_lines, sheet
from analysis.laws.law import LawFit
from trials.errors import UserError


def law_figure(fit: LawFit, compare: Sequence[LawFit] = (), *, title: str | None = None) -> Figure:
    """(a) The data, the law with its 95% band, and the laws of ``compare`` dashed; (b) residuals of the law.

    Rows are faint, their means at each x bold (geometric means for a law fitted to logarithms). The legend gives
    how much larger the AICc of each other law is. Residuals are in units of ``fit.sigma``; rings mark rows whose
    leverage is more than twice the mean, P / n (Hoaglin & Welsch 1978). For a law of several inputs both panels are
    over what it predicts, and other laws are only named. Raises UserError where ``compare`` has fits of other columns.
    """
    for other in compare:
        if (other.x, other.y) != (fit.x, fit.y):
            raise UserError(f"law figure: {other.law.name} was fitted to {other.y} of {', '.join(other.x)}, "
                            f"{fit.law.name} to {fit.y} of {', '.join(fit.x)}; compare fits of the same columns")
    predicted = fit.predict(fit.data[list(fit.x)])
    data = pd.DataFrame({"x": fit.data[fit.x[0]] if len(fit.x) == 1 else predicted, "y": fit.data[fit.y],
                         "residual": fit.data["residual"] / (fit.sigma or 1.0), "leverage": fit.data["leverage"]})
    clusters = fit.data["cluster"].nunique()
    note = f"{fit.law.formula}: {describe(fit.estimates)} ({fit.method}). {fit.n} rows"
    note += f" in {clusters} clusters" if clusters < fit.n else ""
    if data["x"].duplicated().any():
        note += f"; bold: {'geometric ' if fit.law.log else ''}means"
    note += ". Rings: leverage more than twice the mean." if _far_out(data, len(fit.estimates)).any() else "."
    if len(fit.x) > 1 and compare:
        note += " AICc of others: " + ", ".join(f"{other.law.name} {_behind(other, fit)}" for other in compare) + "."
    inputs = " and ".join(label(name, unit=False) for name in fit.x)
    title = title or f"{label(fit.y, unit=False).partition('  ')[0]}, by {inputs}"
    with sheet(1, 2, title, note) as (figure, (law, residuals)):
        _law(law, data, fit, compare)
        _residuals(residuals, data, fit)
        for panel in (law, residuals):
            panel.set_xlabel(label(fit.x[0]) if len(fit.x) == 1 else f"{label(fit.y)}, as predicted")
            if log_spaced(data["x"].drop_duplicates()):
                make_log(panel, "x")
        name_lines(figure, law)
    return figure


def _law(panel: Axes, data: pd.DataFrame, fit: LawFit, compare: Sequence[LawFit]) -> None:
    values = np.log(data["y"]) if fit.law.log else data["y"]
    means = values.groupby(data["x"]).mean()
    panel.plot(data["x"], data["y"], linestyle="none", marker="o", color="black", alpha=0.3, markersize=2.5,
               markeredgewidth=0)
    panel.plot(means.index, np.exp(means) if fit.law.log else means, linestyle="none", marker="o", color="black",
               markeredgecolor="white", markeredgewidth=0.5, label=f"{len(data)} rows")
    x = _grid(data["x"])
    if len(fit.x) == 1:
        panel.fill_between(x, *fit.band(x), color=COLORS[0], alpha=0.25, linewidth=0)
        panel.plot(x, fit.predict(x), color=COLORS[0], label=f"{fit.law.name}, 95% band")
        for other, (color, _, _), dash in zip(compare, LINES[1:], ("--", "-.", ":", (0, (6, 1, 1, 1, 1, 1))),
                                              strict=False):
            panel.plot(x, other.predict(x, extrapolate=True), color=color, linestyle=dash,
                       label=f"{other.law.name}, AICc {_behind(other, fit)}")
    else:
        panel.plot(x, x, color=COLORS[0], label=f"{fit.law.name}: as predicted")
    panel.set_ylabel(label(fit.y))
    if fit.law.log and data["y"].max() > 3 * data["y"].min():
        make_log(panel, "y")


def _residuals(panel: Axes, data: pd.DataFrame, fit: LawFit) -> None:
    panel.axhline(0, color=COLORS[0])
    for sign in (-2, 2):
        panel.axhline(sign, color=GREY, linestyle=":", linewidth=0.8)
    panel.plot(data["x"], data["residual"], linestyle="none", marker="o", color="black", markersize=3,
               markeredgewidth=0, alpha=0.7)
    far = data[_far_out(data, len(fit.estimates))]
    panel.plot(far["x"], far["residual"], linestyle="none", marker="o", markersize=7, markerfacecolor="none",
               markeredgecolor=COLORS[1], markeredgewidth=1)
    reach = 1.15 * max(2.5, data["residual"].abs().max())
    panel.set(ylim=(-reach, reach), ylabel=r"residual of log  ($\sigma$)" if fit.law.log else r"residual  ($\sigma$)")


def _far_out(data: pd.DataFrame, parameters: int) -> pd.Series:
    return data["leverage"] > 2 * parameters / len(data)


def _behind(other: LawFit, fit: LawFit) -> str:
    return f"{other.aicc - fit.aicc:+.1f}"


def _grid(x: pd.Series) -> np.ndarray:
    """200 points over the data, evenly spaced as the axis is."""
    space = np.geomspace if log_spaced(x.drop_duplicates()) else np.linspace
    return np.asarray(space(x.min(), x.max(), 200))
