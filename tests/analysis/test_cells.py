"""The summary: means over the right trials and steps, never over layers; divergence counted; the terminal table."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

import analysis
from trials.errors import UserError

LAYERS = {"fc1": {"rows": 512, "cols": 64}, "fc2": {"rows": 512, "cols": 512}, "fc3": {"rows": 512, "cols": 10}}


def trial(study, batch, seed, *, status="completed", accuracy=0.5, shift=0.0, **more):
    layers = {name: {**size, "stable_rank": place + shift, "mp_softrank": 0.5, "alpha": 3.0 + shift}
              for place, (name, size) in enumerate(LAYERS.items())}
    study.add(f"b{batch}s{seed}", {"batch_size": batch, "seed": seed}, status=status,
              final={"train_accuracy": 1.0, "test_accuracy": accuracy, "train_loss": 0.1, "test_loss": 0.2},
              layers=layers, **more)


def shown(frame, width=200, **options):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(analysis.format_table(frame, **options))
    return console.export_text()


def test_means_and_spreads_are_of_the_finished_trials_at_their_last_step(study):
    trial(study, 4, 0, accuracy=0.8)
    trial(study, 4, 1, accuracy=0.9, shift=1.0, status="stopped", steps=(0, 30))  # shorter than the others
    trial(study, 4, 2, accuracy=0.1, shift=50.0, status="diverged")
    trial(study, 8, 0, accuracy=0.7)
    trial(study, 8, 1, accuracy=0.1, status="failed")
    frame = analysis.summary(analysis.load(study.root)).set_index("batch_size")
    assert frame.index.tolist() == [4, 8]
    assert frame[["completed", "stopped", "diverged", "failed", "n"]].values.tolist() == [[1, 1, 1, 0, 2],
                                                                                          [1, 0, 0, 1, 1]]
    assert frame.test_accuracy.tolist() == pytest.approx([0.85, 0.7])
    assert frame.test_accuracy_sd[4] == pytest.approx(0.1 / np.sqrt(2)) and np.isnan(frame.test_accuracy_sd[8])
    assert frame["fc2.stable_rank"].tolist() == [1.5, 1.0]  # of fc2 alone, the widest hidden one; not the -1 of step 0
    assert frame["fc2.alpha"].tolist() == [3.5, 3.0]
    assert not any(name.startswith(("fc1", "fc3")) for name in frame)


def test_layers_of_ones_choice_stay_apart(study):
    trial(study, 4, 0)
    frame = analysis.summary(analysis.load(study.root), ["fc1", "fc3"])
    assert frame["fc1.stable_rank"].tolist() == [0.0] and frame["fc3.stable_rank"].tolist() == [2.0]
    with pytest.raises(UserError, match="no layer called 'fc4'; did you mean"):
        analysis.summary(analysis.load(study.root), ["fc4"])


def test_a_metric_that_some_trials_lack_says_of_how_many_its_mean_is(study):
    trial(study, 4, 0)
    study.add("b4s1", {"batch_size": 4, "seed": 1}, layers={"fc2": {**LAYERS["fc2"], "stable_rank": 3.0}})
    frame = analysis.summary(analysis.load(study.root))
    assert frame["fc2.alpha"].tolist() == [3.0] and frame["fc2.alpha_n"].tolist() == [1]
    assert frame["fc2.stable_rank"].tolist() == [2.0] and "fc2.stable_rank_n" not in frame


def test_all_axes_but_the_seed_make_the_cells(make_study):
    study = make_study(["model", "lr", "seed"])
    for model in ("mlp", None):  # a value that older trials do not have
        for lr in (0.1, 0.2):
            for seed in range(2):
                study.add(f"{model}{lr}{seed}", {"model": model, "lr": lr, "seed": seed}, final={"test_loss": lr})
    frame = analysis.summary(analysis.load(study.root))
    assert frame[["lr", "n", "test_loss"]].values.tolist() == [[0.1, 2, 0.1], [0.2, 2, 0.2]] * 2
    assert frame.model.isna().sum() == 2
    assert "test_accuracy" not in frame


def test_a_study_of_seeds_alone_is_one_row(make_study):
    study = make_study(["seed"])
    for seed in range(3):
        study.add(f"s{seed}", {"seed": seed}, final={"test_loss": float(seed)})
    frame = analysis.summary(analysis.load(study.root))
    assert frame[["study", "n", "test_loss", "test_loss_sd"]].values.tolist() == [["demo", 3, 1.0, 1.0]]


def test_nothing_finished_is_still_counted(study):
    trial(study, 4, 0, status="diverged")
    frame = analysis.summary(analysis.load(study.root))
    assert frame[["batch_size", "diverged", "n"]].values.tolist() == [[4, 1, 0]] and "test_accuracy" not in frame
    assert "diverged" in shown(frame)


def test_the_terminal_table(study):
    trial(study, 4, 0, accuracy=0.123456)
    trial(study, 1000, 0, accuracy=1.0)
    frame = analysis.summary(analysis.load(study.root))
    text = shown(frame)
    assert "0.123 " in text and "1000" in text and "fc2" in text
    assert "diverged" not in text and "loss" not in text and "left" not in text
    assert frame.to_csv(index=False).startswith(
        "batch_size,completed,stopped,diverged,failed,at_chance,n,train_accuracy,")


def test_many_cells_are_cut_with_a_word_on_the_rest(make_study):
    study = make_study(["lr", "batch_size"], config={"model": pa.string(), "lr": pa.float64(), "batch_size": pa.int64(),
                                                     "seed": pa.int64()})
    for cell in range(30):
        study.add(f"c{cell}", {"lr": cell / 10, "batch_size": cell}, final={"test_accuracy": 0.5})
    frame = analysis.summary(analysis.load(study.root))
    text = shown(frame, limit=24)
    assert "2.3" in text and "2.4" not in text.split("more rows")[0]
    assert "6 more rows" in text and "SELECT lr, batch_size, avg(test_accuracy) FROM trials GROUP BY ALL" in " ".join(
        text.split())
    analysis.query(study.root, "SELECT lr, batch_size, avg(test_accuracy) FROM trials GROUP BY ALL")
