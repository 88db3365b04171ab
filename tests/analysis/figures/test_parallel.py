"""The parallel view: every cell a line through its values, ending at its metric; the best on top."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from analysis.figures.parallel import parallel_view
from analysis.tables import load
from trials import records
from trials.errors import UserError

CONFIG = {"model": pa.string(), "lr": pa.float64(), "batch_size": pa.int64(), "seed": pa.int64(),
          "weight_decay": pa.float64()}


@pytest.fixture
def tables(make_study):
    """Accuracy is 0.1 (log10 lr + 4) + 0.01 seed for mlp, less for linear; those of lr = 1 diverged."""
    study = make_study(["lr", "model", "weight_decay", "seed"], config=CONFIG)
    trials = []
    for lr in (0.001, 0.01, 0.1, 1.0):
        for model in ("linear", "mlp"):
            for decay in (0.0, 0.01, 0.1, 1.0):
                for seed in (0, 2):
                    accuracy = 0.1 * (np.log10(lr) + 4) + 0.2 * (model == "mlp") + 0.01 * seed + 0.001 * decay
                    config = {"lr": lr, "model": model, "weight_decay": decay, "seed": seed}
                    trials.append(study.rows(f"{lr}{model}{decay}{seed}", config,
                                             status="diverged" if lr == 1 else "completed",
                                             final={"test_accuracy": accuracy, "test_loss": 10 ** (-10 * accuracy)}))
    study.write(records.Rows.concat(trials))
    return load(study.root)


def segments(collection):
    return np.array([path.vertices for path in collection.get_paths()])


def test_lines_run_through_their_values_to_their_mean(drawn, tables):
    figure = drawn(parallel_view(tables, "test_accuracy"))
    panel = figure.axes[0]
    lost, lines = (segments(collection) for collection in panel.collections)
    assert len(lines) == 24 and len(lost) == 8 and lines.shape[1] == lost.shape[1] + 1 == 4
    assert np.unique(lost[:, 1, 1]).size == 1  # lr 1, the highest
    np.testing.assert_array_equal(lines[0, :, 0], [0, 1, 2, 3])
    lr = np.unique(lines[:, 1, 1].round(9))
    np.testing.assert_allclose(np.diff([*lr, lost[0, 1, 1]]), lr[1] - lr[0])  # evenly spaced: a log axis
    assert np.unique(lines[:, 0, 1].round(9)).size == 2 and np.unique(lines[:, 2, 1].round(9)).size == 4
    assert lines[:, :3, 1].min() >= 0 and lines[:, :3, 1].max() <= 1
    worst, best = 0.1 + 0.01, 0.3 + 0.2 + 0.01 + 0.001  # means over seeds 0 and 2
    np.testing.assert_allclose((lines[:, 3, 1].min(), lines[:, 3, 1].max()), (0, 1), atol=1e-12)
    bar = next(axes for axes in panel.child_axes if axes.get_ylabel() == "test accuracy")
    np.testing.assert_allclose(bar.get_ylim(), (worst, best), rtol=1e-9)


def test_the_best_are_on_top_and_thick_in_the_colours_of_a_map(drawn, tables):
    for metric in ("test_accuracy", "test_loss"):
        panel = drawn(parallel_view(tables, metric)).axes[0]
        lines = panel.collections[1]
        heights = segments(lines)[:, 3, 1]
        brightness = lines.get_colors()[:, :3] @ [0.299, 0.587, 0.114]
        assert (np.diff(heights) * (1 if metric == "test_accuracy" else -1)).min() >= 0
        assert abs(brightness[-1] - brightness[0]) > 0.3  # dark is low, as in a map
        assert brightness[-1] == (brightness.max() if metric == "test_accuracy" else brightness.min())
        assert lines.get_linewidths()[-1] == max(lines.get_linewidths()) > lines.get_linewidths()[0]
        models = segments(lines)[:, 0, 1]
        assert models[-1] == models.max() > models.min()  # mlp is above linear, and better by either


def test_each_axis_has_a_scale_of_its_own(drawn, tables):
    figure = drawn(parallel_view(tables, "test_accuracy"))
    model, lr, decay, bar = sorted(figure.axes[0].child_axes, key=lambda axes: axes.get_position().x0)
    assert [axes.get_yscale() for axes in (lr, model, decay)] == ["log", "linear", "symlog"]
    assert [text.get_text() for text in model.get_yticklabels()] == ["linear", "mlp"]
    assert [text.get_text() for text in decay.get_yticklabels()] == ["0", "0.01", "0.1", "1"]
    assert bar.get_ylabel() == "test accuracy"
    note = figure._supxlabel.get_text().replace("\n", " ")
    assert "64 trials: 48 finished, 16 diverged. A line for each of 32 cells" in note and "Dotted: 8" in note


def test_what_cannot_be_drawn(tables, make_study):
    with pytest.raises(UserError, match=r"no column called 'test_acuracy' in .* did you mean 'test_accuracy'"):
        parallel_view(tables, "test_acuracy")
    with pytest.raises(UserError, match="no finished trial has train_loss"):
        parallel_view(tables, "train_loss")
    study = make_study(["batch_size"], "one")
    for batch in (1, 2):
        study.add(str(batch), {"batch_size": batch}, final={"test_loss": 1.0})
    with pytest.raises(UserError, match="axes with several values: 1; a parallel view needs two or more"):
        parallel_view(load(study.root), "test_loss")
