"""Training a trial end to end: against plain PyTorch, its streams, its budget, its measurements and its failures."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trials.batches import Batches, total_steps
from trials.errors import UserError
from trials.matrices import matrices
from trials.measure import Measure, steps
from trials.network import tensors
from trials.records import COLUMNS
from trials.rehearsal import rehearse
from trials.setup import build_network, load_data
from trials.spec import TrialSpec, parse_trial
from trials.streams import derive
from trials.tasks.base import Data
from trials.trainer import train

torch.set_num_threads(1)


def spec(**changes: Any) -> TrialSpec:
    return parse_trial({
        "task": "digits", "model": {"name": "mlp", "width": 16, "depth": 1}, "optimizer": {"name": "sgd", "lr": 0.05},
        "budget": {"steps": 40}, "batch_size": 8, "precision": "float64", **changes})


def losses(trial: TrialSpec) -> list[float]:
    return [row["train_loss"] for row in train(trial, Measure(weights="none", eigenvalues="none")).steps]


def test_agrees_with_a_plain_pytorch_loop() -> None:
    trial = spec(optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01})
    data = load_data(trial)
    torch.manual_seed(derive(0, "init"))
    hidden, last = nn.Linear(64, 16), nn.Linear(16, 10)
    model = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), last).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    batches = Batches(data, 8, 0)
    for step in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batches[step].x_B), batches[step].target_BC).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model(data.x_test), data.y_test).item()
    assert train(trial, Measure()).trial["test_loss"] == pytest.approx(expected, rel=1e-10)


def test_same_seed_same_numbers_other_seed_others() -> None:
    assert losses(spec()) == losses(spec())
    assert losses(spec()) != losses(spec(seed=1))


def test_a_knob_does_not_shift_anothers_stream() -> None:
    noisy = {"input_noise": {"std": 0.3}}
    assert losses(spec(knobs=noisy)) == losses(spec(knobs={**noisy, "dropout": {"p": 0.0}}))
    assert losses(spec()) == losses(spec(knobs={"dropout": {"p": 0.0}}))
    assert losses(spec(knobs=noisy)) != losses(spec())


def test_trial_leaves_torchs_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(spec(), Measure())
    assert torch.equal(torch.rand(3), expected)


def toy(n: int) -> Data:
    x = torch.arange(n, dtype=torch.float64)[:, None]
    return Data(x, x, x, x, None)


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (10, 10), (7, 7), (12, 4), (5, 1)])
def test_every_epoch_shows_every_sample_once(n: int, batch_size: int) -> None:
    epochs = batch_size  # that many epochs end with a batch
    batches = Batches(toy(n), batch_size, seed=3)
    drawn = torch.cat([batches[step].x_B[:, 0] for step in range(epochs * n // batch_size)]).tolist()
    assert Counter(drawn) == {float(i): epochs for i in range(n)}
    for epoch in range(epochs):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == [float(i) for i in range(n)]
    if n > 5:
        assert drawn[:n] != drawn[n : 2 * n] or epochs == 1


def test_a_batch_depends_on_its_step_alone() -> None:
    forward, again = Batches(toy(10), 3, seed=0), Batches(toy(10), 3, seed=0)
    expected = [forward[step].x_B.tolist() for step in range(12)]
    assert [again[step].x_B.tolist() for step in reversed(range(12))] == expected[::-1]


def test_budget_in_epochs_and_steps() -> None:
    assert total_steps(spec(budget={"epochs": 2.0}, batch_size=8), 1000) == 250
    assert total_steps(spec(budget={"epochs": 1.0}, batch_size=1000), 1347) == 2  # the last batch completes the epoch
    assert total_steps(spec(budget={"epochs": 0.1}, batch_size=10), 1000) == 10  # not 11 by rounding
    assert total_steps(spec(budget={"steps": 7}), None) == 7
    with pytest.raises(UserError, match=r"trial\.budget\.epochs: .*give budget\.steps"):
        total_steps(spec(budget={"epochs": 1.0}), None)


def test_measured_steps() -> None:
    assert steps("none", 100, 4) == set()
    assert steps("last", 100, 4) == {100}
    assert steps("ends", 100, 4) == {0, 100}
    assert steps("log", 100, 1) == {0, 1, 10, 100}
    assert steps("log", 1000, 2) == {0, 1, 3, 10, 32, 100, 316, 1000}
    for per_decade in (1, 3, 10):
        chosen = sorted(steps("log", 12345, per_decade))
        assert chosen[0] == 0 and chosen[-1] == 12345 and 1 in chosen


def test_rows_of_a_trial() -> None:
    trial = spec(model={"name": "mlp", "width": 16, "depth": 2})
    emitted = train(trial, Measure(weights="ends", changes="last", eigenvalues="last"))
    assert [row["step"] for row in emitted.steps] == sorted(steps("log", 40, 4))
    assert [(row["step"], row["layer"]) for row in emitted.layers] == [
        *((0, layer) for layer in ("fc1", "fc2", "fc3")), *((40, layer) for layer in ("fc1", "fc2", "fc3")),
        *((40, f"{layer}:change") for layer in ("fc1", "fc2", "fc3"))]
    assert [(row["step"], row["layer"]) for row in emitted.spectra] == [
        (40, f"{layer}{what}") for what in ("", ":change") for layer in ("fc1", "fc2", "fc3")]
    assert [len(row["eigenvalues"]) for row in emitted.spectra] == [16, 16, 10] * 2
    assert emitted.steps[0]["gradient_norm"] is None and emitted.steps[0]["weight_distance"] == 0.0
    assert emitted.trial["status"] == "completed" and emitted.trial["steps"] == 40
    assert emitted.trial["epochs"] == pytest.approx(40 * 8 / 1347)
    assert emitted.trial["test_loss"] == emitted.steps[-1]["test_loss"]
    assert emitted.trial["parameters"] == 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10


def test_layer_numbers_are_of_the_right_matrix_at_the_right_step() -> None:
    trial = spec()
    emitted = train(trial, Measure("ends", "ends", "none", "ends"))
    network = build_network(trial, load_data(trial))
    start = {matrix.layer: matrix.of(tensors(network.module)[0]) for matrix in matrices(network.module)}
    for row, spectrum in zip(emitted.layers[:2], emitted.spectra[:2], strict=True):
        weight = start[row["layer"]]
        assert row["frobenius_norm"] == pytest.approx(float(weight.norm()), rel=1e-10)
        singular = torch.linalg.svdvals(weight)
        n = max(weight.shape)
        assert spectrum["eigenvalues"] == pytest.approx((singular.square() / n).tolist(), rel=1e-8)


def test_divergence_is_data() -> None:
    emitted = train(spec(optimizer={"name": "sgd", "lr": 1e4}), Measure())
    trial = emitted.trial
    assert trial["status"] == "diverged" and trial["test_loss"] is None
    assert trial["diverged_step"] == trial["steps"] and f"step {trial['steps']}" in trial["reason"]
    assert all(row["step"] <= trial["diverged_step"] and math.isfinite(row["train_loss"]) for row in emitted.steps)


def test_divergence_is_dated_exactly() -> None:
    """Gradient descent on one quadratic: the loss grows by a known factor each step, so the step is known too."""
    trial = spec(task={"name": "gaussian_regression", "dim": 1, "samples": 4}, batch_size=4, budget={"steps": 3000},
                 model={"name": "mlp", "depth": 0, "bias": False}, optimizer={"name": "sgd", "lr": 1.0})
    data = load_data(trial)
    curvature = float(data.x_train.square().mean())
    lr = 4.0 / curvature  # the error is multiplied by 1 - lr h = -3, the loss by 9
    emitted = train(spec(**{**trial.__dict__, "optimizer": {"name": "sgd", "lr": lr}, "knobs": {}}), Measure("ends"))
    network = build_network(trial, data)
    first = float(data.loss(network(*tensors(network.module), data.x_train), data.y_train).mean())
    expected = next(k for k in range(3000) if first * 9.0**k > 1e6 * max(1.0, first))
    assert emitted.trial["diverged_step"] == expected


def test_stopping_loss() -> None:
    emitted = train(spec(budget={"epochs": 50.0, "stop_train_loss": 0.5}),
                    Measure(weights="last", changes="none", eigenvalues="none"))
    trial = emitted.trial
    assert trial["status"] == "stopped" and trial["train_loss"] < 0.5
    assert emitted.steps[-1]["step"] == trial["steps"] < 50 * 1347 / 8
    assert {row["step"] for row in emitted.layers} == {trial["steps"]}  # the last step is where it stopped
    assert all(row["train_loss"] >= 0.5 for row in emitted.steps[:-1])


def test_convolution_embedding_and_bare_parameters_are_named() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.embed = nn.Conv2d(2, 4, 3), nn.Embedding(5, 3)
            self.block = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
            self.scale = nn.Parameter(torch.ones(1, 6))

    found = {matrix.layer: (matrix.kind, tuple(matrix.of(dict(Mixed().named_parameters())).shape))
             for matrix in matrices(Mixed())}
    assert found == {"conv": ("conv2d", (4, 18)), "embed": ("embedding", (5, 3)), "block.0": ("linear", (2, 3)),
                     "scale": ("parameter", (1, 6))}


def test_every_group_of_measurements_reaches_the_rows_and_disturbs_nothing() -> None:
    everything = Measure("ends", *["ends"] * 8)
    for model in ({"name": "mlp", "width": 16, "depth": 1}, {"name": "mini_alexnet", "channels": 4, "width": 8}):
        plain = train(spec(model=model, budget={"steps": 3}), Measure("ends", "none", "none", "none"))
        full = train(spec(model=model, budget={"steps": 3}), everything)
        assert [row["train_loss"] for row in full.steps] == [row["train_loss"] for row in plain.steps]
        known = {table: {column.name for column in COLUMNS[table]} - {"trial_id"} for table in COLUMNS}
        for row in full.steps:
            assert set(row) == known["steps"]
        for row in full.layers:
            assert set(row) <= known["layers"]
        last = [row for row in full.layers if row["step"] == 3]
        assert {column for row in last for column, value in row.items() if value is not None} >= {
            "stable_rank", "activation_isoscore", "tangent_alignment", "dead_units", "nc1"}
        for column in ("hessian_max", "gradient_noise_scale", "ntk_drift", "test_ece"):
            assert full.steps[-1][column] is not None, column
        assert full.steps[0]["ntk_drift"] == 0.0 and full.steps[-1]["ntk_drift"] > 0.0
        layers = [row["layer"] for row in last]
        assert len(layers) == len(set(layers))
        assert ("conv1:operator" in layers) == (model["name"] == "mini_alexnet")


def test_a_model_whose_output_would_broadcast_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "flat_model.py"
    file.write_text("from torch import nn\n"
                    "def build(input_shape, outputs):\n"
                    "    return nn.Sequential(nn.Linear(input_shape[0], 1), nn.Flatten(0))\n")
    flat = spec(task={"name": "gaussian_regression", "dim": 3}, model={"name": f"{file}:build"})
    with pytest.raises(UserError, match=r"trial\.model: .* shape \(2,\) for 2 inputs; expected \(2, 1\)"):
        rehearse(flat)
