"""The figure of phases: each label in its place and colour, trials apart, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

import analysis
from analysis.figures.style import PHASE_LOOKS
from analysis.laws.walk import walk, walk_in_training
from trials.errors import UserError

SIZE = {"rows": 512, "cols": 64, "hard_rank": 64, "delta_rank": 60, "mp_distance": 0.01}
SPIKES, NOISE = {**SIZE, "n_spikes": 3, "mp_softrank": 0.4}, {**SIZE, "n_spikes": 0, "mp_softrank": 1.0}
SMALL = {**SIZE, "cols": 10, "hard_rank": 10, "delta_rank": 9, "n_spikes": 3, "mp_softrank": 0.4}


@pytest.fixture
def walked(study):
    """fc1 has spikes below a batch of 16, at 16 for the first seed only; fc2 is noise, fc3 too small for a label."""
    for batch in (4, 8, 16, 32):
        for seed in range(2):
            spikes = batch < 16 or (batch == 16 and seed == 0)
            config = {"batch_size": batch, "seed": seed}
            layers = {"fc1": SPIKES if spikes else NOISE, "fc2": NOISE, "fc3": SMALL}
            rows = study.rows(f"b{batch}s{seed}", config, layers=layers, steps=(100,))
            start = {"fc1": NOISE, "fc2": NOISE, "fc3": SMALL}
            early = study.rows(f"b{batch}s{seed}", config, layers=start, steps=(1,))
            study.measure(early, ("layers", "steps"))
            study.write(rows)
    return analysis.load(study.root)


def boxes(panel):
    """(left, right, low, high, colour) of each label."""
    found = []
    for drawn in panel.collections:
        if isinstance(drawn, PolyCollection):
            for path in drawn.get_paths():
                (left, low), (right, high) = path.vertices.min(0), path.vertices.max(0)
                found.append((left, right, low, high, to_hex(drawn.get_facecolor()[0])))
    return found


def at(panel, x, y):
    """The colours of the labels at these places."""
    return [color for left, right, low, high, color in boxes(panel) if left < x < right and low < y < high]


def test_labels_are_where_they_belong(walked):
    figure = analysis.phases_figure(walked)
    left, right = figure.axes
    spikes, noise = PHASE_LOOKS["bulk+spikes"][0], PHASE_LOOKS["random-like"][0]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["fc2", "fc1"]  # fc3 has no label anywhere
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["4", "8", "16", "32"]
    assert len(boxes(left)) == 4 * 2 * 2
    for column, (first, second) in enumerate([(spikes, spikes)] * 2 + [(spikes, noise), (noise, noise)]):
        assert at(left, column, 1.2) == [first] and at(left, column, 0.8) == [second]  # seeds from the top
        assert at(left, column, 0.2) == at(left, column, -0.2) == [noise]
    assert at(right, 0.3, 0.2) == [noise] and at(right, 1.7, 0.2) == [spikes]  # half way from step 1 to 100
    assert at(right, 1.7, 2.2) == [spikes] and at(right, 1.7, 1.8) == [noise]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["random-like", "bulk+spikes"]
    assert "fc2 in training" in analysis.phases_figure(walked, "fc2").axes[1].get_title(loc="left")
    with pytest.raises(UserError, match="no layer called 'fc9'"):
        analysis.phases_figure(walked, "fc9")


def test_the_summary_has_the_phases(walked):
    frame = analysis.summary(walked)
    assert frame["fc1.phase"].tolist() == ["bulk+spikes", "bulk+spikes", "random-like 1/2", "random-like"]
    assert set(frame["fc2.phase"]) == {"random-like"} and "fc3.phase" not in frame


def test_what_cannot_be_drawn(study, make_study):
    study.add("a", layers={"fc1": NOISE})
    study.add("b", {"batch_size": 4}, layers={"fc1": NOISE})
    with pytest.raises(UserError, match="no two different phases"):
        analysis.phases_figure(analysis.load(study.root))
    two = make_study(["batch_size", "lr"], "two")
    two.add("a", layers={"fc1": NOISE})
    two.add("b", {"batch_size": 4, "lr": 0.5}, layers={"fc1": SPIKES})
    with pytest.raises(UserError, match="along one axis, but 2 are swept"):
        analysis.phases_figure(analysis.load(two.root))


def test_the_figure_of_a_claim_has_shares():
    labels = [["bulk-decay", "bulk+spikes"], ["bulk+spikes"] * 2, ["bulk+spikes", None], ["random-like"] * 2,
              ["random-like"] * 2]
    rows = pd.DataFrame([{"x": x, "phase": phase} for x, each in enumerate(labels) for phase in each])
    [panel] = analysis.walk_figure(walk(rows, "x", ["bulk-decay", "bulk+spikes", "random-like"])).axes
    heights = {(round(left + 0.46), color): high - low for left, _, low, high, color in boxes(panel)}
    assert heights[(0, PHASE_LOOKS["bulk-decay"][0])] == heights[(2, PHASE_LOOKS["none"][0])] == pytest.approx(0.5)
    assert heights[(3, PHASE_LOOKS["random-like"][0])] == pytest.approx(1) and np.isclose(sum(heights.values()), 5)


def test_in_training_all_trials_count_at_each_step():
    """Half of them end at step 10; a trial that is not measured at a step counts by its latest label."""
    early, late = {0: "random-like", 10: "random-like"}, {0: "random-like", 1: "bulk+spikes", 100: "bulk+spikes"}
    rows = pd.DataFrame([{"trial_id": str(trial), "configuration": trial, "step": step, "phase": phase}
                         for trial in range(8) for step, phase in (early if trial % 2 else late).items()])
    figure = analysis.walk_figure(walk_in_training(rows, ["random-like", "bulk+spikes"]))
    heights = {(round(left + 0.46), color): high - low for left, _, low, high, color in boxes(figure.axes[0])}
    shares = [heights.get((place, PHASE_LOOKS["bulk+spikes"][0]), 0) for place in range(4)]
    assert shares == pytest.approx([0, 0.5, 0.5, 0.5])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "1", "10", "100"]
    assert "of the 8 trials" in figure._supxlabel.get_text().replace("\n", " ")
