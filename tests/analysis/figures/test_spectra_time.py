"""Spectra over steps: densities at the steps they were kept, the edge and the eigenvalues beyond it, of one trial."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.figures.spectra_time import spectra_over_time
from analysis.tables import load
from trials import records
from trials.errors import UserError

STEPS = (0, 1, 10, 100)


def eigenvalues(step):
    """63 in a bulk from 0.1 to 1, and one that grows."""
    return np.array([1 + step / 10.0, *np.geomspace(1, 0.1, 63)])


def add(study, trial_id, batch, steps, layers=("fc1", "fc2"), status="completed"):
    every = {"trial_id": trial_id, "batch_size": batch, "seed": 0, "model": "mlp", "lr": 0.1}
    keys = [{**every, "step": step, "layer": layer} for step in steps for layer in layers]
    study.write(records.Rows.build(study.schema, {
        "trials": [{**every, "status": status, "steps": 100}], "steps": [],
        "layers": [{**key, "kind": "linear", "rows": 128, "cols": 64 if key["layer"] == "fc2" else 32,
                    "lambda_plus": 1.2 + key["step"] / 1000, "lambda_max": eigenvalues(key["step"]).max()}
                   for key in keys],
        "spectra": [{**key, "eigenvalues": eigenvalues(key["step"]).tolist()} for key in keys]}))


@pytest.fixture
def tables(study):
    add(study, "b", 8, STEPS)
    add(study, "a", 2, (0, 100))
    add(study, "c", 32, STEPS)
    return load(study.root)


def test_densities_edge_and_largest_over_steps(drawn, line, tables):
    figure = drawn(spectra_over_time(tables))
    panel = figure.axes[0]
    assert "spectrum of fc2 (128 × 64)" in figure._suptitle.get_text()
    assert "a single trial (batch size 8, seed 0), 4 steps" in figure._supxlabel.get_text().replace("\n", " ")
    assert line(panel, r"$\lambda_{\max}$").get_xdata().tolist() == list(STEPS)
    np.testing.assert_allclose(line(panel, r"$\lambda_{\max}$").get_ydata(), [1, 1.1, 2, 11])
    np.testing.assert_allclose(line(panel, "MP edge").get_ydata(), [1.2, 1.201, 1.21, 1.3])
    (mesh,) = panel.collections
    density = np.ma.filled(mesh.get_array(), 0)
    corners = mesh.get_coordinates()
    assert density.shape[1] == len(STEPS)
    for place, step in enumerate(STEPS):
        assert corners[0, place, 0] < step < corners[0, place + 1, 0]
        edges = corners[:, place, 1]
        inside = (eigenvalues(step) >= edges[0]).sum()
        np.testing.assert_allclose((density[:, place] * np.diff(np.log(edges))).sum(), inside / 64, rtol=1e-9)
        top = np.flatnonzero(density[:, place])[-1]
        assert edges[top] <= eigenvalues(step).max() < edges[top + 1]
    assert panel.get_xscale() == "symlog" and panel.get_yscale() == "log"


def test_eigenvalues_beyond_the_edge_are_triangles(drawn, study):
    add(study, "a", 2, (0, 100))
    figure = drawn(spectra_over_time(load(study.root)))
    assert not [each for each in figure.axes[0].lines if each.get_marker() == "^"]  # only the largest is beyond
    study.write(records.Rows.build(study.schema, {
        "trials": [{"trial_id": "d", "batch_size": 1, "seed": 0, "model": "mlp", "lr": 0.1, "status": "completed"}],
        "steps": [], "layers": [{"trial_id": "d", "batch_size": 1, "seed": 0, "step": step, "layer": "fc2",
                                 "kind": "linear", "rows": 128, "cols": 64, "lambda_plus": 0.95, "lambda_max": 11.0}
                                for step in (0, 100)],
        "spectra": [{"trial_id": "d", "batch_size": 1, "seed": 0, "step": step, "layer": "fc2",
                     "eigenvalues": [11.0, *np.linspace(2, 0.1, 63)]} for step in (0, 100)]}))
    figure = drawn(spectra_over_time(load(study.root), trial_id="d"))
    marks = next(each for each in figure.axes[0].lines if each.get_marker() == "^")
    expected = [value for value in np.linspace(2, 0.1, 63) if value > 0.95]
    np.testing.assert_allclose(marks.get_ydata(), [*expected, *expected])


def test_a_trial_and_a_layer_of_choice(drawn, tables):
    figure = drawn(spectra_over_time(tables, "fc1", "a"))
    assert "spectrum of fc1 (128 × 32)" in figure._suptitle.get_text()
    assert "batch size 2, seed 0), 2 steps" in figure._supxlabel.get_text().replace("\n", " ")


def test_what_cannot_be_drawn(tables, make_study):
    with pytest.raises(UserError, match="no spectra of a layer called 'fc3'; did you mean 'fc"):
        spectra_over_time(tables, "fc3")
    with pytest.raises(UserError, match="no spectra of fc2 in a trial 'bb'; did you mean 'b'"):
        spectra_over_time(tables, trial_id="bb")
    once = make_study(["batch_size"], "once")
    add(once, "a", 2, (100,))
    with pytest.raises(UserError, match=r"kept at one step only; set measure.eigenvalues to log and run again"):
        spectra_over_time(load(once.root))
    never = make_study(["batch_size"], "never")
    add(never, "a", 2, STEPS, layers=())
    with pytest.raises(UserError, match=r"no eigenvalues were kept; set measure.eigenvalues to log and run again"):
        spectra_over_time(load(never.root))


def test_a_study_whose_trials_all_diverged_is_drawn(drawn, study):
    add(study, "a", 2, (0, 10), status="diverged")
    assert "spectrum of fc2" in drawn(spectra_over_time(load(study.root)))._suptitle.get_text()
