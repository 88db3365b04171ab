"""Curves over steps: means over seeds, bands of their range, step 0 at the left edge, the other axes held."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from analysis.figures.curves import curves
from analysis.tables import load
from trials import records
from trials.errors import UserError

STEPS = (0, 1, 3, 10, 30, 100)


def add(study, batch, seed, lr=0.1, status="completed", model="mlp", steps=STEPS):
    """Train loss 2^seed B / (1 + step); stable rank B + step in fc2, -1 in fc1."""
    every = {"trial_id": f"{batch},{seed},{lr},{model}", "batch_size": batch, "seed": seed, "lr": lr, "model": model}
    rows = [{**every, "step": step} for step in steps]
    study.write(records.Rows.build(study.schema, {
        "trials": [{**every, "status": status, "steps": steps[-1]}],
        "steps": [{**row, "train_loss": 2**seed * batch / (1 + row["step"])} for row in rows],
        "layers": [{**row, "layer": layer, "kind": "linear", "rows": size, "cols": size,
                    "stable_rank": batch + row["step"] if layer == "fc2" else -1.0}
                   for row in rows for layer, size in (("fc1", 8), ("fc2", 64))],
        "spectra": []}))


@pytest.fixture
def tables(make_study):
    study = make_study(["batch_size", "lr", "seed"])
    for batch in (2, 8, 32):
        for seed in (0, 1, 2):
            add(study, batch, seed, status="diverged" if (batch, seed) == (2, 2) else "completed")
    add(study, 8, 0, lr=0.5)
    return load(study.root)


def test_lines_are_means_over_seeds_in_bands_of_their_range(drawn, line, tables):
    figure = drawn(curves(tables, "train_loss", "batch_size"))
    panel, bar = figure.axes
    steps = np.array(STEPS)
    for batch in (2, 8, 32):
        mean = line(panel, str(batch))
        assert mean.get_xdata().tolist() == list(STEPS)
        np.testing.assert_allclose(mean.get_ydata(), 7 / 3 * batch / (1 + steps), rtol=1e-12)
    corners = panel.collections[0].get_paths()[0].vertices
    assert {*corners[corners[:, 0] == 3, 1]} == {2 / 4, 4 * 2 / 4}
    assert panel.get_xscale() == "symlog" and panel.get_yscale() == "log"
    low, high = panel.get_xlim()
    assert -1 < low < 0 and 100 < high < 200
    at = panel.transAxes.inverted().transform(panel.transData.transform([[0, 1], [1, 1], [10, 1], [100, 1]]))[:, 0]
    assert 0 < at[0] < 0.1 and np.diff(at).min() > 0.1 and np.isclose(at[3] - at[2], at[2] - at[1])
    assert bar.get_yscale() == "log" and [text.get_text() for text in bar.get_yticklabels()] == ["2", "8", "32"]
    brightness = [np.dot(line(panel, str(batch)).get_color()[:3], (0.299, 0.587, 0.114)) for batch in (2, 8, 32)]
    assert np.diff(brightness).min() > 0.1  # told apart in grey
    note = figure._supxlabel.get_text().replace("\n", " ")
    assert "9 trials: 8 finished, 1 diverged. Only those with learning rate 0.1." in note


def test_a_metric_of_layers_is_of_one_layer(drawn, line, tables):
    panel = drawn(curves(tables, "stable_rank", "batch_size")).axes[0]
    assert line(panel, "8").get_ydata().tolist() == [8 + step for step in STEPS]
    assert panel.get_ylabel().startswith("stable rank of fc2  ")
    assert set(line(drawn(curves(tables, "stable_rank", "batch_size", "fc1")).axes[0], "8").get_ydata()) == {-1}


def test_where_chooses_what_the_other_axes_are_held_at(drawn, line, tables):
    figure = drawn(curves(tables, "train_loss", "batch_size", where={"lr": 0.5}, title="mine"))
    assert line(figure.axes[0], "8").get_ydata().tolist() == [8 / (1 + step) for step in STEPS]
    assert "1 trials: 1 finished. Only those with learning rate 0.5" in figure._supxlabel.get_text().replace("\n", " ")
    assert figure.get_suptitle() == "mine"
    with pytest.raises(UserError, match=r"no trial has lr 0\.3; there is: 0\.1, 0\.5"):
        curves(tables, "train_loss", "batch_size", where={"lr": 0.3})


def test_one_step_is_a_point_and_the_note_says_so(drawn, line, make_study):
    study = make_study(["batch_size", "seed"])
    for batch in (2, 8):
        add(study, batch, 0, steps=(100,))
    figure = drawn(curves(load(study.root), "stable_rank", "batch_size"))
    assert line(figure.axes[0], "8").get_marker() == "o" and line(figure.axes[0], "8").get_ydata().tolist() == [108]
    assert "one step only" in figure._supxlabel.get_text()


def test_ticks_of_close_values_are_told_apart(drawn, make_study):
    study = make_study(["lr", "seed"])
    for lr in (1.09, 1.091, 1.1):
        add(study, 2, 0, lr=lr)
    bar = drawn(curves(load(study.root), "train_loss", "lr")).axes[1]
    assert [text.get_text() for text in bar.get_yticklabels()] == ["1.09", "1.091", "1.1"]


def test_a_number_that_no_gate_let_pass_says_so(tables):
    with pytest.raises(UserError, match=r"alpha is null in all 60 rows: alpha: the tail is no power law; alpha_raw"):
        curves(tables, "alpha", "batch_size")


def test_categories_have_colours_markers_and_dashes(drawn, line, make_study):
    study = make_study(["model"])
    for model in ("mlp", "linear"):
        add(study, 4, 0, model=model)
    figure = drawn(curves(load(study.root), "train_loss", "model"))
    first, second = (line(figure.axes[0], name) for name in ("linear", "mlp"))
    for look in ("color", "marker", "linestyle"):
        assert getattr(first, f"get_{look}")() != getattr(second, f"get_{look}")()
    assert len(figure.axes) == 1 and len(figure.legends) == 1
    assert "means over" not in figure._supxlabel.get_text()


def test_what_cannot_be_drawn(tables, make_study):
    for wanted, message in [
            (("train_los", "batch_size"), "no number called 'train_los' in steps or layers; did you mean 'train_loss'"),
            (("layer", "batch_size"), "no number called 'layer'"),
            (("train_loss", "batchsize"), "no axis called 'batchsize'; did you mean 'batch_size'"),
            (("stable_rank", "lr", "fc3"), "no layer called 'fc3'; did you mean"),
            (("train_loss", "lr", "fc1"), "train_loss is of the whole model; leave out the layer 'fc1'"),
            (("gradient_norm", "lr"), "gradient_norm was never measured")]:
        with pytest.raises(UserError, match=message):
            curves(tables, *wanted)
    study = make_study(["model"], "names", {"model": pa.string(), "lr": pa.float64(), "batch_size": pa.int64(),
                                            "seed": pa.int64()})
    for place in range(8):
        add(study, 4, 0, model=f"m{place}")
    with pytest.raises(UserError, match="model has 8 categories, of which 7 can be told apart"):
        curves(load(study.root), "train_loss", "model")
