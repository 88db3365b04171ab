"""A law over its data: what is drawn is the data, the law, its band and its residuals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analysis.estimates import Estimate
from analysis.figures.law import law_figure
from analysis.laws.law import Law, LawFit
from trials.errors import UserError

POWER = Law("power", "y = a x^b", "-", ("a", "b"), lambda p, x: p[0] * x[:, 0] ** p[1], lambda x, y: [])
LINE = Law("line", "y = a + b x", "-", ("a", "b"), lambda p, x: p[0] + p[1] * x[:, 0], lambda x, y: [], log=False)
PLANE = Law("two powers", "y = a x^b z^c", "-", ("a", "b", "c"),
            lambda p, x: p[0] * x[:, 0] ** p[1] * x[:, 1] ** p[2], lambda x, y: [], inputs=2)
BATCH = np.array([1.0, 1, 1, 4, 4, 4, 16, 16, 16, 64, 64, 64])
NOISE = np.tile([0.8, 1.0, 1.25], 4)  # its geometric mean is 1


def fitted(law, parameters, x, y, aicc=0.0):
    """A fit made by hand: its draws are the parameters times 0.9 ... 1.1."""
    names = ("batch_size", "lr")[:law.inputs]
    x = np.reshape(x, (-1, law.inputs))
    predicted = law.predict(np.array(parameters), x)
    residual = np.log(y / predicted) if law.log else y - predicted
    leverage = np.where(x[:, 0] == x[:, 0].max(), 0.6, 0.1)
    data = pd.DataFrame({**dict(zip(names, x.T, strict=True)), "test_loss": y, "fitted": predicted,
                         "residual": residual, "leverage": leverage, "cluster": x[:, 0]})
    estimates = {name: Estimate(value, 0.9 * value, 1.1 * value)
                 for name, value in zip(law.parameters, parameters, strict=True)}
    draws = np.outer(np.linspace(0.9, 1.1, 101), [1.0, *[0.0] * (len(parameters) - 1)]) * np.array(parameters)
    draws[:, 1:] = parameters[1:]
    return LawFit(law, names, "test_loss", estimates, data, 0.1, aicc, draws, "by hand")


def test_the_law_its_band_and_the_means_of_its_rows(drawn, line):
    fit = fitted(POWER, [3.0, -0.5], BATCH, 3 * BATCH**-0.5 * NOISE, aicc=-20.0)
    other = fitted(POWER, [2.0, -0.3], BATCH, 3 * BATCH**-0.5 * NOISE, aicc=-13.5)
    figure = drawn(law_figure(fit, [dataclasses.replace(other, law=dataclasses.replace(POWER, name="flatter"))]))
    panel, _ = figure.axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    x, y = line(panel, "power").get_data()
    assert (x.min(), x.max()) == (1, 64) and len(x) >= 100
    np.testing.assert_allclose(y, 3 * x**-0.5, rtol=1e-12)
    means = line(panel, "12 rows")
    assert means.get_xdata().tolist() == [1, 4, 16, 64]
    np.testing.assert_allclose(means.get_ydata(), [3, 1.5, 0.75, 0.375], rtol=1e-12)
    corners = panel.collections[0].get_paths()[0].vertices
    at_16 = corners[np.isclose(corners[:, 0], x[np.abs(x - 16).argmin()], rtol=1e-9), 1]
    np.testing.assert_allclose([at_16.min(), at_16.max()],
                               3 * x[np.abs(x - 16).argmin()] ** -0.5 * np.array([0.905, 1.095]), rtol=1e-9)
    dashed = line(panel, "flatter")
    assert dashed.get_label() == "flatter, AICc +6.5" and dashed.get_linestyle() != "-"
    np.testing.assert_allclose(dashed.get_ydata(), 2 * x**-0.3, rtol=1e-12)
    note = figure._supxlabel.get_text().replace("\n", " ")
    assert "y = a x^b: a 3 [2.7, 3.3], b -0.5" in note and "12 rows in 4 clusters" in note


def test_residuals_are_in_units_of_sigma_and_far_rows_have_rings(drawn):
    figure = drawn(law_figure(fitted(POWER, [3.0, -0.5], BATCH, 3 * BATCH**-0.5 * NOISE)))
    panel = figure.axes[1]
    zero, _, _, points, rings = panel.lines
    assert set(zero.get_ydata()) == {0}
    np.testing.assert_allclose(points.get_ydata(), np.log(NOISE) / 0.1, rtol=1e-12, atol=1e-12)
    assert rings.get_xdata().tolist() == [64, 64, 64] and rings.get_markerfacecolor() == "none"
    low, high = panel.get_ylim()
    assert low < -np.log(1.25) / 0.1 < np.log(1.25) / 0.1 < high


def test_a_law_that_is_not_of_logarithms_is_on_linear_axes_with_arithmetic_means(drawn, line):
    x = np.array([0.0, 0, 1, 1, 2, 2])
    figure = drawn(law_figure(fitted(LINE, [1.0, 10.0], x, 1 + 10 * x + np.tile([-0.5, 0.5], 3))))
    panel = figure.axes[0]
    assert panel.get_xscale() == panel.get_yscale() == "linear"
    np.testing.assert_allclose(line(panel, "6 rows").get_ydata(), [1, 11, 21])
    assert "bold: means" in figure._supxlabel.get_text().replace("\n", " ")


def test_a_law_of_two_inputs_is_drawn_against_what_it_predicts(drawn, line):
    x = np.column_stack([BATCH, np.tile([0.1, 0.2, 0.4], 4)])
    y = 2 * x[:, 0] ** 0.5 * x[:, 1] * np.tile([0.9, 1 / 0.9], 6)
    fit = fitted(PLANE, [2.0, 0.5, 1.0], x, y)
    figure = drawn(law_figure(fit, [dataclasses.replace(fit, aicc=4.0)]))
    panel = figure.axes[0]
    rows = panel.lines[0]
    np.testing.assert_allclose(rows.get_xdata(), 2 * x[:, 0] ** 0.5 * x[:, 1], rtol=1e-12)
    np.testing.assert_allclose(rows.get_ydata(), y)
    diagonal = line(panel, "two powers")
    assert diagonal.get_xdata().tolist() == diagonal.get_ydata().tolist()
    assert "as predicted" in panel.get_xlabel() and "two powers +4.0" in figure._supxlabel.get_text()


def test_laws_of_other_columns_are_not_compared():
    fit = fitted(POWER, [3.0, -0.5], BATCH, 3 * BATCH**-0.5)
    with pytest.raises(UserError, match="was fitted to alpha of batch_size, power to test_loss of batch_size"):
        law_figure(fit, [dataclasses.replace(fit, y="alpha")])
