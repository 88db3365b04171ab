"""Figures of trends and collapses draw the numbers that were fitted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.figures.collapse import collapse_figure
from analysis.figures.trend import trend_figure
from analysis.laws.collapse import collapse
from analysis.laws.trend import trend


def test_trend() -> None:
    x = np.repeat([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 2)
    data = pd.DataFrame({"batch_size": x, "stable_rank": np.sqrt(x) + np.tile([0.1, -0.1], 6)})
    figure = trend_figure(trend(data, "batch_size", "stable_rank"))
    dots, line = figure.axes[0].lines
    np.testing.assert_allclose(dots.get_ydata(), data["stable_rank"])
    np.testing.assert_allclose(line.get_ydata(), np.sqrt(x[::2]))
    assert figure.axes[0].get_xscale() == "log" and "rank_correlation 1" in figure.get_supxlabel()


def test_collapse() -> None:
    sizes, rates = np.repeat(2.0 ** np.arange(10), 12), np.tile(np.geomspace(1e-3, 1.0, 12), 10)
    noise = np.exp(0.02 * np.random.default_rng(0).normal(size=120))
    data = pd.DataFrame({"batch_size": sizes, "lr": rates, "loss": noise / (1 + (50 * rates / sizes) ** 1.5)})
    fit = collapse(data, "lr", "loss", "batch_size")
    plain, collapsed = collapse_figure(fit).axes
    assert len(plain.lines) == 7 and len(collapsed.lines) == 8  # of ten curves; the master curve beside them
    first = collapsed.lines[1]
    np.testing.assert_allclose(first.get_xdata(), rates[:12])  # scale 1
    last = collapsed.lines[-1]
    np.testing.assert_allclose(last.get_xdata(), rates[:12] / 512 ** fit.estimates["exponent"].value)
    np.testing.assert_allclose(np.log(collapsed.lines[0].get_ydata()), np.log(np.interp(
        collapsed.lines[0].get_xdata(), np.sort(fit.data["collapsed_x"]),
        fit.data.sort_values("collapsed_x")["fitted"])), atol=1e-9)
