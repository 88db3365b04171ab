"""The figures: what is drawn where, from which trials; on log axes; with nothing of pyplot touched."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch

import analysis
from analysis.figures.esd import marchenko_pastur
from trials.errors import UserError
from trials.spectra.marchenko_pastur import cdf as marchenko_pastur_cdf

LAYERS = {"fc1": {"rows": 512, "cols": 64}, "fc2": {"rows": 512, "cols": 512}}


def add(study, name, config, *, status="completed", level=1.0, spectra=None, final=None):
    layers = {layer: {**size, "stable_rank": level * (place + 1), "mp_softrank": 0.5, "alpha": 3.0,
                      "lambda_plus": 4.0 * level} for place, (layer, size) in enumerate(LAYERS.items())}
    study.add(name, config, status=status, layers=layers, spectra=spectra,
              final=final or {"train_accuracy": 1.0, "test_accuracy": 0.9, "train_loss": 0.1, "test_loss": 0.2})


def drawn(figure):
    """Draw it, with warnings as errors: nothing overlaps out of the page, nothing is missing from the fonts."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    assert buffer.tell() > 3_000
    return figure


def lines(panel, name):
    return next(line for line in panel.lines if line.get_label() == name)


@pytest.fixture
def one_axis(study):
    for batch in (2, 8, 32, 128):
        for seed in range(3):
            add(study, f"b{batch}s{seed}", {"batch_size": batch, "seed": seed}, level=batch * (1 + seed),
                status="diverged" if (batch, seed) == (2, 2) else "completed",
                spectra={"fc1": np.geomspace(batch * 10, 0.1, 64), "fc2": [2.0, 1.0]})
    return analysis.load(study.root)


def test_curves_are_means_over_finished_trials_with_every_trial_as_a_dot(one_axis):
    figure = drawn(analysis.summary_figure(one_axis))
    rank, softrank, _, accuracy = figure.axes
    assert [panel.get_ylabel().split("  ")[0] for panel in figure.axes] == [
        "stable rank", "MP soft rank", "power-law exponent", "error (1 - accuracy)"]
    assert len({panel.get_xlim() for panel in figure.axes}) == 1  # also where a metric is at some batches only
    assert accuracy.get_yscale() == "linear" and lines(accuracy, "test").get_ydata() == pytest.approx(0.1)
    line = lines(rank, "fc2")
    assert line.get_xdata().tolist() == [2, 8, 32, 128]
    assert line.get_ydata().tolist() == [2 * 2 * 1.5, 2 * 8 * 2, 2 * 32 * 2, 2 * 128 * 2]  # a trial of batch 2 diverged
    dots = [line for line in rank.lines if line.get_linestyle() == "None"]
    assert sum(np.isfinite(dot.get_ydata().astype(float)).sum() for dot in dots) == 2 * 11
    assert rank.get_xscale() == rank.get_yscale() == "log" and softrank.get_yscale() == "linear"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fc1", "fc2"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["train", "test"]
    cross = next(line for line in accuracy.lines if line.get_marker() == "x")
    assert cross.get_xdata().tolist() == [2]
    assert "12 trials: 11 finished, 1 diverged" in figure._supxlabel.get_text()


def test_layers_differ_in_colour_marker_and_dash(one_axis):
    figure = analysis.summary_figure(one_axis, ["fc2", "fc1"])
    first, second = (lines(figure.axes[0], name) for name in ("fc2", "fc1"))
    for look in ("color", "marker", "linestyle"):
        assert getattr(first, f"get_{look}")() != getattr(second, f"get_{look}")()
    with pytest.raises(UserError, match="no layer called 'fc9'"):
        analysis.summary_figure(one_axis, ["fc9"])


def test_categories_and_losses_of_a_regression(make_study):
    study = make_study(["model", "seed"])
    for model in ("mlp", "linear"):
        for seed in range(2):
            study.add(f"{model}{seed}", {"model": model, "seed": seed},
                      final={"train_loss": 1.0 + seed, "test_loss": 2.0 + seed})
    figure = drawn(analysis.summary_figure(analysis.load(study.root)))
    (loss,) = figure.axes
    assert [label.get_text() for label in loss.get_xticklabels()] == ["linear", "mlp"]
    assert lines(loss, "test").get_ydata().tolist() == [2.5, 2.5] and loss.get_ylabel() == "loss"


def test_maps_over_two_axes(make_study):
    study = make_study(["lr", "batch_size", "seed"])
    for batch in (2, 8, 32):
        for lr in (0.1, 1.0):
            for seed in range(2):
                add(study, f"{batch},{lr},{seed}", {"lr": lr, "batch_size": batch, "seed": seed}, level=batch * lr,
                    status="diverged" if (batch, lr) == (2, 1.0) or (batch, lr, seed) == (8, 1.0, 1) else "completed",
                    final={"test_accuracy": batch / 100 + lr / 10 + seed / 1000})
    figure = drawn(analysis.summary_figure(analysis.load(study.root)))
    titles = {panel.get_title("left").partition(") ")[2]: panel for panel in figure.axes if panel.get_title("left")}
    assert list(titles) == ["test accuracy", "stable rank of fc2", "fraction diverged"]
    cells = {title: np.ma.filled(panel.collections[0].get_array(), np.nan) for title, panel in titles.items()}
    expected = [[0.0305, np.nan], [0.0905, 0.18], [0.3305, 0.4205]]
    np.testing.assert_allclose(cells["test accuracy"], expected, rtol=1e-12)  # rows: batch size, columns: lr
    np.testing.assert_allclose(cells["fraction diverged"], [[0, 1], [0, 0.5], [0, 0]])
    np.testing.assert_allclose(cells["stable rank of fc2"], [[0.4, np.nan], [1.6, 16], [6.4, 64]])
    assert [label.get_text() for label in titles["test accuracy"].get_yticklabels()] == ["2", "8", "32"]


def test_designs_without_a_grid_are_points(make_study):
    study = make_study(["lr", "batch_size", "model"])
    for trial in range(12):
        add(study, str(trial), {"lr": 10.0 ** (trial / 4), "batch_size": 1 + trial, "model": "ab"[trial % 2]},
            status="diverged" if trial == 5 else "completed")
    figure = drawn(analysis.summary_figure(analysis.load(study.root)))
    accuracy = figure.axes[0]
    points, crosses = accuracy.collections
    assert len(points.get_offsets()) == 11 and crosses.get_offsets().tolist() == [[10.0**1.25, 6]]
    assert accuracy.get_xscale() == "log" and accuracy.get_yscale() == "linear"
    assert "not shown: model" in figure._supxlabel.get_text()


@pytest.mark.parametrize("axes", [["batch_size", "seed"], ["batch_size", "lr"], ["seed"], []])
@pytest.mark.parametrize("status", ["diverged", "failed", "completed"])
def test_poor_studies_are_drawn_too(make_study, axes, status):
    """One trial, or none that finished."""
    study = make_study(axes)
    add(study, "a", {"batch_size": 1, "lr": 0.1}, status=status)
    if status != "completed":
        add(study, "b", {"batch_size": 2, "lr": 0.2}, status=status)
    figure = drawn(analysis.summary_figure(analysis.load(study.root)))
    trials = 1 if status == "completed" else 2
    assert f"{trials} trial" in figure._supxlabel.get_text()


def test_spectra_are_of_single_trials_that_differ_in_one_axis(one_axis):
    figure = drawn(analysis.spectra_figure(one_axis, layer="fc1", count=3))
    assert "spectrum of fc1 (512 × 64)" in figure._suptitle.get_text()
    assert "seed 0" in figure._supxlabel.get_text()
    assert [panel.get_title("left") for panel in figure.axes] == [
        "(a) batch size 2", "(b) batch size 32", "(c) batch size 128"]
    for panel, batch in zip(figure.axes, (2, 32, 128), strict=True):
        eigenvalues = np.geomspace(batch * 10, 0.1, 64)
        heights, edges, _ = panel.patches[0].get_data()
        inside = (eigenvalues >= edges[0]).sum()
        np.testing.assert_allclose((heights * np.diff(edges)).sum(), inside / 64)
        beyond = eigenvalues > 4 * batch
        marks = next(line for line in panel.lines if line.get_marker() == "^")
        np.testing.assert_array_equal(marks.get_xdata(), eigenvalues[beyond])
        assert f"{beyond.sum()} beyond" in panel.get_title("right")
        assert panel.get_xscale() == panel.get_yscale() == "log"


@pytest.fixture
def collapsed(make_study):
    """A network that has collapsed at one learning rate, and one that is 0."""
    study = make_study(["lr", "seed"])
    for lr, scale in ((0.1, 1.0), (0.2, 1.0), (0.3, 1e-12), (0.4, 0.0)):
        values = list(scale * np.geomspace(10, 0.1, 64))
        add(study, f"{lr}", {"lr": lr, "seed": 0}, level=scale, spectra={"fc2": values})
    return analysis.load(study.root)


def test_spectra_that_lie_decades_apart_have_axes_of_their_own(collapsed):
    """Each shows all of its spectrum."""
    figure = drawn(analysis.spectra_figure(collapsed))
    for panel, scale in zip(figure.axes, (1, 1, 1e-12), strict=False):
        heights, edges, _ = panel.patches[0].get_data()
        np.testing.assert_allclose((heights * np.diff(edges)).sum(), 62 / 64)  # two are below the lowest bin
        low, high = panel.get_xlim()
        assert low < 0.2 * scale and 10 * scale < high < 100 * scale
        low, high = panel.get_ylim()
        assert low < heights[heights > 0].min() and heights.max() < high
    assert figure.axes[3].get_title("right") == "all 64 are 0 or infinite"
    assert "axes of its own" in figure._supxlabel.get_text()


def test_shared_axes_hold_the_bars_of_every_panel(one_axis):
    figure = drawn(analysis.spectra_figure(one_axis, layer="fc1"))
    for panel in figure.axes:
        heights = panel.patches[0].get_data().values
        low, high = panel.get_ylim()
        assert (low, high) == figure.axes[0].get_ylim() and low < heights[heights > 0].min() < heights.max() < high


def test_spectra_in_one_panel(one_axis):
    figure = drawn(analysis.spectra_figure(one_axis, layer="fc1", overlay=True, title="mine"))
    (panel,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"batch size {b}" for b in (2, 8, 32, 128)]
    for steps, batch in zip(panel.patches, (2, 8, 32, 128), strict=True):
        heights, edges, _ = steps.get_data()
        inside = (np.geomspace(batch * 10, 0.1, 64) >= edges[0]).mean()
        np.testing.assert_allclose(np.nansum(heights * np.diff(edges)), inside)
    assert figure.get_suptitle().startswith("mine")


@pytest.fixture
def grid(make_study):
    study = make_study(["batch_size", "lr", "seed"])
    for batch in (2, 4, 8):
        for lr in (0.1, 0.0310723):
            for seed in (5, 6):
                add(study, f"{batch},{lr},{seed}", {"batch_size": batch, "lr": lr, "seed": seed}, level=batch * lr,
                    spectra={"fc2": np.geomspace(batch * lr, 0.001, 64)},
                    final={"test_accuracy": batch * lr / 10 + seed / 1000})
    return analysis.load(study.root)


def test_where_chooses_what_the_other_axes_are_held_at(grid):
    figure = drawn(analysis.spectra_figure(grid, where={"optimizer.lr": 0.0311, "seed": 6}))  # as figures write it
    assert "(learning rate 0.0311, seed 6)" in figure._supxlabel.get_text()
    assert len(figure.axes) == 3
    assert figure.axes[0].patches[0].get_data().edges[-1] == pytest.approx(1.001 * 8 * 0.0310723)
    line = lines(analysis.summary_figure(grid, where={"lr": 0.1}).axes[0], "fc2")
    assert line.get_ydata() == pytest.approx([2 * b * 0.1 for b in (2, 4, 8)])
    spread = analysis.replicate_spread(grid, "test_accuracy", where={"lr": 0.1, "batch_size": [2, 8]})
    assert "4 finished trials in 2 cells" in spread._supxlabel.get_text()
    assert "Only those with learning rate 0.1, batch size 2 or 8." in spread._supxlabel.get_text().replace("\n", " ")
    view = analysis.parallel_view(grid, "test_accuracy", where={"batch_size": [2, 4]})
    assert "8 trials" in view._supxlabel.get_text()
    maps = analysis.phase_map(grid.trials, "batch_size", "lr", "test_accuracy", where={"seed": 5}, title="mine")
    assert maps._supxlabel.get_text().startswith("6 trials in 6 cells") and maps.get_suptitle() == "mine"


@pytest.mark.parametrize(("where", "message"), [
    ({"lr": 0.2}, "no trial has lr 0.2; there is: 0.0311, 0.1"),
    ({"lr": 0.1, "seed": [7]}, "no trial has seed 7 beside the rest of where; there is: 5, 6"),
    ({"batchsize": 2}, "no column called 'batchsize'; did you mean 'batch_size'"),
])
def test_a_where_that_no_trial_meets(grid, where, message):
    for draw in (analysis.summary_figure, analysis.spectra_figure, analysis.spectra_over_time):
        with pytest.raises(UserError, match=message):
            draw(grid, where=where)


def test_the_other_axes_are_held_where_most_values_are(make_study):
    study = make_study(["batch_size", "lr", "seed"])
    for batch, lr in [(2, 0.1), (2, 0.2), (4, 0.2), (8, 0.2)]:
        for seed in (5, 6):
            add(study, f"{batch},{lr},{seed}", {"batch_size": batch, "lr": lr, "seed": seed}, spectra={"fc2": [2., 1.]})
    figure = analysis.spectra_figure(analysis.load(study.root), axis="batch_size")
    assert len(figure.axes) == 3 and "(learning rate 0.2, seed 5)" in figure._supxlabel.get_text()


def test_spectra_that_are_not_there(study, one_axis):
    with pytest.raises(UserError, match="no spectra of a layer called 'fc3'; did you mean 'fc"):
        analysis.spectra_figure(one_axis, layer="fc3")
    with pytest.raises(UserError, match="no axis called 'batchsize'; did you mean 'batch_size'"):
        analysis.spectra_figure(one_axis, axis="batchsize")


def test_no_spectra_kept(study):
    add(study, "a", {})
    with pytest.raises(UserError, match="no eigenvalues were kept; set measure"):
        analysis.spectra_figure(analysis.load(study.root))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_the_marchenko_pastur_density_is_the_slope_of_the_distribution(ratio):
    variance, step = 2.25, 1e-6
    x, density = marchenko_pastur(variance * (1 + ratio**0.5) ** 2, ratio, 1e-4)
    assert x[0] == pytest.approx(max(variance * (1 - ratio**0.5) ** 2, 1e-4)) and density[-1] == 0
    inner = x[1:-1]
    gamma = torch.tensor(ratio, dtype=torch.float64)
    above, below = (marchenko_pastur_cdf(torch.tensor(inner * (1 + sign * step) / variance), gamma) for sign in (1, -1))
    np.testing.assert_allclose(density[1:-1], (above - below).numpy() / (2 * step * inner), rtol=1e-5)


def test_pyplot_is_never_imported():
    code = "import analysis, sys; sys.exit('matplotlib.pyplot' in sys.modules or 'duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
