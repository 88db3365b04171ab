"""Phase maps: cells where the values are, in the colour of what became of them, split by share; and the boundary."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from analysis.boundaries.boundary import Boundary
from analysis.estimates import Estimate
from analysis.figures.phase_map import cell_edges, phase_map
from analysis.figures.style import PHASE_LOOKS
from analysis.tables import load
from trials.errors import UserError


def grid(lrs=(0.01, 0.1, 1.0), batches=(1, 4, 16, 64)):
    """Three trials a cell: diverged above lr = 0.02 B, two of three at it."""
    rows = [{"lr": lr, "batch_size": batch, "seed": seed} for lr in lrs for batch in batches for seed in range(3)]
    frame = pd.DataFrame(rows)
    return frame.assign(status=np.where(frame["lr"] > 0.02 * frame["batch_size"], "diverged", "completed"))


def areas(panel, place):
    """(x0, x1, y0, y1) of each rectangle of a category, in logarithms."""
    return [tuple(np.log([*sorted({*path.vertices[:, 0]}), *sorted({*path.vertices[:, 1]})]))
            for path in panel.collections[place].get_paths()]


def by_hand(coefficients, data, kind="boundary", log=(True, True)):
    draws = np.array(coefficients) + np.outer(np.linspace(-0.1, 0.1, 101), [1, 0, 0])
    rows = data[["batch_size", "lr"]].assign(outcome=0.0, cluster=0, censored=False)
    return Boundary("batch_size", "lr", log, "diverged", kind, "seen", {"slope": Estimate(1.0, 0.9, 1.1)},
                    np.array(coefficients, float), draws, rows, 0.0, 1.0, "by hand")


def test_cells_are_halfway_between_values_and_split_by_share(drawn, line):
    rows = grid()
    rows.loc[(rows["lr"] == 0.1) & (rows["batch_size"] == 16) & (rows["seed"] == 2), "status"] = "diverged"
    figure = drawn(phase_map(rows, "batch_size", "lr", "status"))
    (panel,) = figure.axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    completed, diverged = areas(panel, 0), areas(panel, 1)
    half, ten = np.log(4) / 2, np.log(10) / 2
    at = (np.log(16) - half, np.log(16) + half, np.log(0.1) - ten, np.log(0.1) + ten)
    split = at[0] + (at[1] - at[0]) * 2 / 3
    assert any(np.allclose(area, (at[0], split, *at[2:])) for area in completed)
    assert any(np.allclose(area, (split, *at[1:])) for area in diverged)
    counts = rows.groupby(["batch_size", "lr"])["status"].agg(set)
    assert len(completed) == sum("completed" in found for found in counts)
    assert len(diverged) == sum("diverged" in found for found in counts)
    total = sum((x1 - x0) * (y1 - y0) for x0, x1, y0, y1 in completed + diverged)
    np.testing.assert_allclose(total, 4 * 2 * half * 3 * 2 * ten)  # the cells tile the map
    first, second = line(panel, "completed"), line(panel, "diverged")
    assert first.get_color() != second.get_color() and first.get_marker() != second.get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["completed", "diverged"]
    assert "36 trials in 12 cells" in figure._supxlabel.get_text()


def test_cells_that_were_not_tried_stay_blank_and_numbers_are_means(drawn):
    rows = grid()
    rows["alpha"] = rows["lr"] * rows["batch_size"] + rows["seed"]
    rows = rows[(rows["lr"] != 1.0) | (rows["batch_size"] != 64)]
    rows.loc[(rows["lr"] == 0.01) & (rows["batch_size"] == 1), "alpha"] = [np.nan, np.inf, np.nan]
    figure = drawn(phase_map(rows, "batch_size", "lr", "alpha"))
    hatched, cells = figure.axes[0].collections
    assert len(hatched.get_paths()) == 1 and hatched.get_hatch()
    np.testing.assert_allclose(np.ma.filled(cells.get_array(), np.nan), [
        [np.nan, 1.04, 1.16, 1.64], [1.1, 1.4, 2.6, 7.4], [2, 5, 17, np.nan]])


def test_zero_stands_at_the_edge_of_a_log_axis_and_categories_side_by_side(drawn):
    rows = pd.DataFrame([{"weight_decay": decay, "model": model, "stable": decay > 0.005}
                         for decay in (0.0, 1e-4, 1e-3, 1e-2) for model in ("mlp", "linear")])
    (panel,) = drawn(phase_map(rows, "model", "weight_decay", "stable")).axes
    assert panel.get_yscale() == "symlog"
    edges = cell_edges(panel.yaxis, rows["weight_decay"])
    assert edges[0] < 0 < edges[1] < 1e-4 and np.allclose(edges[2:4], 10.0 ** np.array([-3.5, -2.5]))
    assert [text.get_text() for text in panel.get_xticklabels()] == ["linear", "mlp"]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["0", "0.0001", "0.001", "0.01"]


def test_a_phase_has_its_own_colour_in_every_map(drawn):
    rows = grid().assign(phase="heavy-tailed")
    alone = drawn(phase_map(rows, "batch_size", "lr", "phase")).axes[0].collections[0]
    rows.loc[rows["lr"] == 0.1, "phase"] = "random-like"
    rows.loc[rows["lr"] == 1.0, "phase"] = None
    panel = drawn(phase_map(rows, "batch_size", "lr", "phase")).axes[0]
    heavy = panel.collections[1]  # in the order of the phases
    assert tuple(heavy.get_facecolor()[0]) == tuple(alone.get_facecolor()[0]) == to_rgba(PHASE_LOOKS["heavy-tailed"][0])
    assert [line.get_label() for line in panel.lines] == ["random-like", "heavy-tailed", "none"]


def test_the_boundary_and_its_band(drawn, line):
    rows = grid()
    boundary = by_hand([1.0, -1.0, 1.0], rows)  # ln lr = -1 + ln B, +-0.1
    figure = drawn(phase_map(rows, "batch_size", "lr", "status", boundary))
    panel = figure.axes[0]
    x, y = line(panel, "P(diverged) = 1/2").get_data()
    assert (x.min(), x.max()) == (1, 64)
    np.testing.assert_allclose(y, x * np.exp(-1), rtol=1e-12)
    ends = [each.get_ydata() for each in panel.lines if each.get_linestyle() == ":"]
    top = panel.get_ylim()[1]
    for end, shift in zip(sorted(ends, key=np.sum), (-0.095, 0.095), strict=True):
        np.testing.assert_allclose(end, np.minimum(x * np.exp(shift - 1), top), rtol=1e-6)
    assert "slope 1 [0.9, 1.1]" in figure._supxlabel.get_text().replace("\n", " ")
    crossover = drawn(phase_map(rows, "batch_size", "lr", "status", by_hand([1.0, -1.0, 1.0], rows, "crossover")))
    assert line(crossover.axes[0], "P(diverged)").get_linestyle() == "--"
    nothing = drawn(phase_map(rows, "batch_size", "lr", "status", by_hand([1.0, -1.0, 1.0], rows, "none")))
    assert "None: seen" in nothing._supxlabel.get_text()
    assert not any("P(" in str(each.get_label()) for each in nothing.axes[0].lines)


def test_designs_without_a_grid_are_points(drawn, line):
    rows = pd.DataFrame({"lr": 10.0 ** np.linspace(-3, 0, 20), "batch_size": np.arange(1, 21)})
    rows["status"] = np.where(rows["batch_size"] > 5, "completed", "diverged")
    (panel,) = drawn(phase_map(rows, "lr", "batch_size", "status")).axes
    assert not panel.collections and line(panel, "diverged").get_ydata().tolist() == [1, 2, 3, 4, 5]
    sparse = grid().drop_duplicates(["lr", "batch_size"])  # 12 cells
    assert not drawn(phase_map(sparse[::3].head(4), "lr", "batch_size", "status")).axes[0].collections
    assert drawn(phase_map(sparse[sparse["lr"] < 1], "lr", "batch_size", "status")).axes[0].collections
    rows["alpha"] = np.where(rows["batch_size"] > 5, rows["lr"], np.nan)
    points, crosses = drawn(phase_map(rows, "lr", "batch_size", "alpha")).axes[0].collections
    assert (len(points.get_offsets()), len(crosses.get_offsets())) == (15, 5)


def test_what_cannot_be_drawn():
    rows = grid()
    with pytest.raises(UserError, match="no column called 'stats'; did you mean 'status'"):
        phase_map(rows, "lr", "batch_size", "stats")
    with pytest.raises(UserError, match="no row has both lr and batch_size"):
        phase_map(rows[:0], "lr", "batch_size", "status")
    with pytest.raises(UserError, match="12 categories, of which 7 can be told apart"):
        phase_map(rows.assign(name=[f"n{k % 12}" for k in range(36)]), "lr", "batch_size", "name")
    with pytest.raises(UserError, match="the boundary is over batch_size and lr; fit one over the same axes"):
        phase_map(rows, "lr", "batch_size", "status", by_hand([1.0, -1.0, 1.0], rows))


def test_the_tables_of_a_study_do_for_rows(make_study):
    study = make_study(["lr", "batch_size"])
    for lr in (0.1, 1.0):
        for batch in (8, 16):
            diverged = (lr, batch) == (1.0, 8)
            study.add(f"r{lr}b{batch}", {"lr": lr, "batch_size": batch}, status="diverged" if diverged else "completed",
                      final={} if diverged else {"test_accuracy": lr * batch / 100})
    panel = phase_map(load(study.root), "lr", "batch_size", "test_accuracy").axes[0]
    heights = [each.get_array() for each in panel.collections]
    assert sorted(heights[-1].compressed()) == pytest.approx([0.008, 0.016, 0.16])
