"""Spread over seeds: the intraclass correlation against planted truth and another formula, and what is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.figures.replicates import by_trial, intraclass_correlation, named, replicate_spread
from analysis.tables import load
from trials import records
from trials.errors import UserError


def sample(rng, cells, seeds, between, within=1.0):
    values = between * rng.standard_normal((cells, 1)) + within * rng.standard_normal((cells, seeds))
    return pd.Series(values.ravel()), pd.Series(np.repeat(np.arange(cells), seeds))


def test_the_share_is_fishers_correlation_of_pairs_of_a_cell():
    """With two trials a cell, (B - W) / (B + W) is, up to cells / (cells - 1), the correlation of all ordered pairs."""
    rng = np.random.default_rng(0)
    values, cells = sample(rng, 2000, 2, 1.0)
    pairs = values.to_numpy().reshape(-1, 2)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    share = intraclass_correlation(values, cells)
    assert share.value == pytest.approx(np.corrcoef(both.T)[0, 1], abs=1e-3)
    assert share.covers(0.5) and share.high - share.low < 0.08


def test_its_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = np.mean([intraclass_correlation(*sample(rng, 12, 3, 0.7)).covers(0.49 / 1.49) for _ in range(400)])
    assert 0.917 <= covered <= 0.983  # 0.95 and three standard errors


def test_cells_of_unequal_size_do_not_bias_it():
    rng = np.random.default_rng(2)
    values, cells = sample(rng, 3000, 4, 1.0)
    kept = rng.random(len(values)) < 0.6
    assert intraclass_correlation(values[kept], cells[kept]).value == pytest.approx(0.5, abs=0.04)


def test_nothing_between_cells_and_nothing_at_all():
    assert intraclass_correlation(pd.Series([1.0, 3, 1, 3]), pd.Series([0, 0, 1, 1])).value == 0
    assert np.isnan(intraclass_correlation(pd.Series([1.0] * 4), pd.Series([0, 0, 1, 1])).value)
    alike = intraclass_correlation(pd.Series([1.0, 1, 2, 2]), pd.Series([0, 0, 1, 1]))
    assert alike.value == alike.low == alike.high == 1


def test_strips_are_sorted_by_mean_and_spreads_are_of_cells(drawn, study, line):
    accuracy = {2: (0.5, 0.7), 8: (0.1, 0.3), 32: (0.3, 0.5), 64: (0.25,)}
    for batch, values in accuracy.items():
        for seed, value in enumerate(values):
            study.add(f"{batch}{seed}", {"batch_size": batch, "seed": seed}, final={"test_accuracy": value})
    study.add("x", {"batch_size": 8, "seed": 7}, status="diverged", final={"test_accuracy": 0.0})
    figure = drawn(replicate_spread(load(study.root), "test_accuracy"))
    strips, spread = figure.axes
    dots, means = strips.lines
    assert sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == [
        (0, 0.1), (0, 0.3), (1, 0.25), (2, 0.3), (2, 0.5), (3, 0.5), (3, 0.7)]
    np.testing.assert_allclose(means.get_ydata(), [0.2, 0.25, 0.4, 0.6])
    assert [text.get_text() for text in strips.get_xticklabels()] == ["8", "64", "32", "2"]
    np.testing.assert_allclose(line(spread, "within a cell").get_ydata(), [0.02**0.5] * 3)
    np.testing.assert_allclose(line(spread, "within, pooled").get_ydata(), 0.02**0.5)
    assert "7 finished trials in 4 cells (batch size)" in figure._supxlabel.get_text()


def test_many_cells_are_picked_evenly_and_decades_are_logarithms(drawn, study):
    trials = [study.rows(f"{batch},{seed}", {"batch_size": batch, "seed": seed},
                         final={"test_loss": 10.0 ** (batch / 20 + 0.1 * seed)})
              for batch in range(1, 122) for seed in range(2)]
    study.write(records.Rows.concat(trials))
    figure = drawn(replicate_spread(load(study.root), "test_loss"))
    strips, spread = figure.axes
    means = strips.lines[1].get_ydata()
    assert len(means) == 60 and strips.get_yscale() == "log"
    np.testing.assert_allclose(means[[0, -1]], 10.0 ** (np.array([1, 121]) / 20 + 0.05), rtol=1e-9)
    assert np.diff(np.log10(means)).max() < 0.16  # two or three steps of 0.05
    np.testing.assert_allclose(spread.lines[0].get_ydata(), 0.1 * np.log(10) / 2**0.5, rtol=1e-6)
    note = figure._supxlabel.get_text().replace("\n", " ")
    assert "242 finished trials in 121 cells (batch size), of which 60 are drawn, evenly picked" in note
    assert "geometric means" in note and "variance of logarithms" in note


def test_a_metric_by_trial(study):
    layers = {"fc1": {"rows": 8, "cols": 4, "stable_rank": 2.0, "alpha": None}}
    study.add("a", {"seed": 0}, layers=layers, final={"test_loss": 0.5})
    study.add("b", {"seed": 1}, layers=layers, final={"test_loss": 0.5}, status="diverged")
    study.add("c", {"seed": 2}, layers=layers, final={"test_loss": float("inf")}, status="stopped")
    tables = load(study.root)
    loss = by_trial(tables, "test_loss").set_index("trial_id")["test_loss"]
    assert loss["a"] == 0.5 and loss[["b", "c"]].isna().all()
    rank = by_trial(tables, "fc1.stable_rank").set_index("trial_id")["fc1.stable_rank"]
    assert rank[["a", "c"]].tolist() == [2.0, 2.0] and np.isnan(rank["b"])  # at the last step, not -1
    assert named("fc1.stable_rank").startswith("stable rank of fc1  $") and named("test_loss") == "test loss"
    for metric, message in [("test_lss", "no column called 'test_lss' in trials .*did you mean 'test_loss'"),
                            ("fc9.alpha", "no layer called 'fc9'; did you mean 'fc1'"),
                            ("fc1.alpa", "no column called 'alpa' in layers"), ("model", "model is no number")]:
        with pytest.raises(UserError, match=message):
            by_trial(tables, metric)


def test_seeds_are_needed(study):
    for batch in (1, 2):
        study.add(str(batch), {"batch_size": batch}, final={"test_loss": 1.0})
    with pytest.raises(UserError, match="2 finished trials in 2 cells says nothing about seeds; sweep an axis"):
        replicate_spread(load(study.root), "test_loss")
