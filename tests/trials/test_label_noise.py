"""Label noise is scored on the labels that are trained on, and clean and corrupted samples apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from trials.batches import Batches
from trials.evaluate import Losses
from trials.knobs.label_noise import LabelNoise
from trials.measure import Measure
from trials.measurements.objective import objective
from trials.observer import Observer
from trials.packs.pack import train_pack
from trials.setup import prepare
from trials.spec import TrialSpec, parse_trial
from trials.streams import Stream
from trials.tasks.base import Data
from trials.trainer import Alone, train

torch.set_num_threads(1)
TASK = '''
import torch, trials

def data():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(160, 40, generator=draw, dtype=torch.float64)
    y = (x[:, :4] * 3).argmax(1)
    return trials.Data(x[:80], y[:80], x[80:], y[80:], 4)
'''


@pytest.fixture
def noisy(tmp_path: Path) -> Any:
    """A trial on 80 samples of 4 classes, which a net of 3,000 parameters can learn by heart."""
    (tmp_path / "task.py").write_text(TASK)

    def make(p: float | None, seed: int = 0, steps: int = 300, stop: float = 0.0, **changes: Any) -> TrialSpec:
        knobs = {} if p is None else {"label_noise": {"p": p}}
        return parse_trial({
            "task": f"{tmp_path / 'task.py'}:data", "model": {"name": "mlp", "width": 64, "depth": 1},
            "optimizer": {"name": "adam", "lr": 0.01}, "budget": {"steps": steps, "stop_train_loss": stop},
            "batch_size": 20, "seed": seed, "precision": "float64", "knobs": knobs, **changes})
    return make


def plain(spec: TrialSpec) -> Losses:
    """What a loop in plain torch comes to, and its evaluation."""
    trial = prepare(spec, "cpu")
    data: Data = trial.data
    replaced, drawn = LabelNoise(spec.knobs["label_noise"]["p"]).drawn(
        Stream.of(spec.seed, "knob.label_noise"), torch.arange(80), 4)
    given = torch.where(replaced, drawn, data.y_train)
    w = {name: value.clone().requires_grad_() for name, value in trial.initial.items()}
    adam = torch.optim.Adam(w.values(), lr=spec.optimizer["lr"])
    batches = Batches(data, spec.batch_size, spec.seed)
    for step in range(spec.budget["steps"]):
        samples = batches.samples(step)[0]
        adam.zero_grad()
        F.cross_entropy(trial.network(w, {}, data.x_train[samples]), given[samples]).backward()
        adam.step()
    with torch.no_grad():
        output = trial.network(w, {}, data.x_train)
    loss, hit = F.cross_entropy(output, given, reduction="none"), output.argmax(1) == given
    wrong = given != data.y_train

    def mean(values: torch.Tensor) -> float | None:
        return values.double().mean().item() if len(values) else None
    return {"train_loss": mean(loss), "train_accuracy": mean(hit), "train_label_noise": mean(wrong),
            "train_loss_clean": mean(loss[~wrong]), "train_accuracy_clean": mean(hit[~wrong]),
            "train_loss_corrupted": mean(loss[wrong]), "train_accuracy_corrupted": mean(hit[wrong]),
            "train_accuracy_corrected": mean((output.argmax(1) == data.y_train)[wrong])}


def test_the_columns_are_those_of_a_plain_loop_alone_and_in_a_pack(noisy: Any) -> None:
    """Lanes of other noise and seed, each against its own labels; without noise all samples are clean."""
    specs = [noisy(0.4, seed=1, steps=25), noisy(0.9, seed=2, steps=25), noisy(0.0, seed=2, steps=25)]
    packed = {spec.trial_id: emitted for spec, emitted in train_pack(specs, Measure(), "cpu", 3)}
    for spec in specs:
        for emitted in (train(spec, Measure()), packed[spec.trial_id]):
            for row in (emitted.steps[-1], emitted.trial):
                for name, value in plain(spec).items():
                    assert row[name] == (value if value is None else pytest.approx(value, rel=1e-6)), name


def test_noise_that_is_learned_by_heart_is_learned(noisy: Any) -> None:
    row = train(noisy(0.4), Measure()).trial
    assert row["train_accuracy"] == row["train_accuracy_clean"] == row["train_accuracy_corrupted"] == 1
    assert row["train_loss"] < 0.05 and 0.2 < row["train_label_noise"] < 0.4
    assert row["train_accuracy_corrected"] == 0 and row["test_accuracy"] < 0.9


def test_stop_train_loss_is_of_the_labels_that_are_trained_on(noisy: Any) -> None:
    specs = [noisy(0.4, stop=0.1), noisy(0.2, seed=1, stop=0.1)]
    packed = {spec.trial_id: emitted for spec, emitted in train_pack(specs, Measure(), "cpu", 2)}
    for spec in specs:
        for row in (train(spec, Measure()).trial, packed[spec.trial_id].trial):
            assert row["status"] == "stopped" and row["train_loss"] < 0.1 and row["steps"] < 300


def test_what_curvature_and_gradients_are_of_is_the_training_loss(noisy: Any) -> None:
    """The probe set is the whole training set here."""
    trial = prepare(noisy(0.4), "cpu")
    reading = Alone(trial).read(None, None)
    of = objective(Observer(trial, Measure()).snapshot(reading))
    assert of.loss(of.theta_P).item() == pytest.approx(reading.losses["train_loss"], rel=1e-12)


def test_without_a_knob_that_relabels_there_is_nothing_to_tell_apart(noisy: Any) -> None:
    row = train(noisy(None, steps=5, knobs={"label_smoothing": {"a": 0.1}}), Measure()).trial
    assert row["train_loss_clean"] is row["train_label_noise"] is row["train_accuracy_corrected"] is None
