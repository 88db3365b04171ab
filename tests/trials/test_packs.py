"""A pack gives each of its trials what it gives alone, row by row, whatever happens to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trials.knobs.dropout import Dropout
from trials.measure import Measure
from trials.observer import Emitted
from trials.packs import lanes as lanes_module
from trials.packs.lanes import Lanes
from trials.packs.pack import train_pack
from trials.packs.unfit import Unfit
from trials.spec import TrialSpec, parse_trial
from trials.trainer import train

torch.set_num_threads(1)

SMALL = Measure(eigenvalues="ends", changes="ends")
FRESH = {"task": {"name": "gaussian_regression", "dim": 5, "samples": 40, "fresh": True},
         "model": {"name": "mlp", "width": 4, "depth": 1}}


def trial(lr: float = 0.05, steps: int = 40, stop: float = 0.0, **changes: Any) -> TrialSpec:
    return parse_trial({
        "task": "digits", "model": {"name": "mlp", "width": 8, "depth": 1}, "optimizer": {"name": "sgd", "lr": lr},
        "budget": {"steps": steps, "stop_train_loss": stop}, "batch_size": 8, "precision": "float64", **changes})


def packed(specs: list[TrialSpec], lanes: int = 64, measure: Measure = SMALL) -> list[Emitted]:
    """What the trials emit side by side, in their order; each comes once."""
    found = [(spec.trial_id, emitted) for spec, emitted in train_pack(specs, measure, "cpu", lanes)]
    assert sorted(name for name, _ in found) == sorted(spec.trial_id for spec in specs)
    return [dict(found)[spec.trial_id] for spec in specs]


def agree(found: Emitted, alone: Emitted, rel: float = 1e-7) -> None:
    """The same rows with the same columns, all but times; floats to rounding."""
    for table in ("steps", "layers", "spectra"):
        assert len(getattr(found, table)) == len(getattr(alone, table))
        for mine, theirs in zip(getattr(found, table), getattr(alone, table), strict=True):
            assert_row(mine, theirs, rel, "elapsed")
    assert_row(found.trial, alone.trial, rel, "wall_time", "lanes")


def assert_row(mine: dict[str, Any], theirs: dict[str, Any], rel: float, *times: str) -> None:
    assert list(mine) == list(theirs)
    for name, value in theirs.items():
        if name not in times:
            expected = pytest.approx(value, rel, 1e-10, nan_ok=True) if isinstance(value, (float, list)) else value
            assert mine[name] == expected, f"{name} at step {theirs.get('step')}"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lanes each step is taken in."""
    found: list[int] = []
    step = Lanes.step
    monkeypatch.setattr(lanes_module, "_recordings", {})
    monkeypatch.setattr(lanes_module, "_trusted", set())  # so that every number of lanes is checked

    def counted(self: Lanes, gradients: bool = False) -> Any:
        found.append(self.count)
        return step(self, gradients)
    monkeypatch.setattr(Lanes, "step", counted)
    return found


# Trials of many fates

@pytest.mark.parametrize("changes", [
    {}, {"precision": "float32"}, FRESH, {**FRESH, "task": {**FRESH["task"], "fresh": False}},
    {"optimizer": {"name": "adam"}, "schedule": {"name": "cosine", "warmup": 0.2}},
    {"task": "modular_addition", "batch_size": 50}, {"model": {"name": "mini_alexnet", "channels": 2, "width": 4}},
], ids=["digits", "float32", "fresh", "regression", "adam", "addition", "convolutions"])
def test_every_row_is_as_alone(changes: dict[str, Any]) -> None:
    specs = [trial(**changes, seed=seed) for seed in range(3)]
    specs += [trial(**{**changes, "optimizer": {**specs[0].optimizer, "lr": lr}}, steps=steps)
              for lr, steps in ((0.01, 40), (0.02, 35), (0.03, 7))]
    for spec, emitted in zip(specs, packed(specs), strict=True):
        agree(emitted, train(spec, SMALL), rel=1e-3 if spec.precision == "float32" else 1e-7)
        assert emitted.trial["lanes"] == 6 and emitted.trial["status"] == "completed"


@pytest.mark.parametrize("lr", [1e4, 1e38, 3.0])
def test_a_lane_that_diverges_leaves_the_others_as_they_are(lr: float) -> None:
    task = FRESH if lr == 3.0 else {}  # above the threshold of stability, but slowly
    others = [trial(seed=seed, steps=100, **task) for seed in range(3)]
    wild = trial(lr, steps=100, **task)
    without, [one, two, lost, three] = packed(others), packed([*others[:2], wild, others[2]])
    for emitted, quiet in zip([one, two, three], without, strict=True):
        agree(emitted, quiet)
    alone = train(wild, SMALL)
    assert alone.trial["status"] == "diverged"
    assert {name: lost.trial[name] for name in ("status", "steps", "diverged_step", "reason")} == {
        name: alone.trial[name] for name in ("status", "steps", "diverged_step", "reason")}
    agree(lost, alone, rel=1e-5)  # rounding grows with the numbers


def test_all_lanes_diverge() -> None:
    found = packed([trial(1e38, seed=seed) for seed in range(3)])
    assert {emitted.trial["status"] for emitted in found} == {"diverged"}


def test_lanes_stop_each_at_its_own_step(counts: list[int]) -> None:
    changes: dict[str, Any] = {"budget": {"epochs": 12.0, "stop_train_loss": 0.5}, "batch_size": 32}
    specs = [trial(**{**changes, "optimizer": {"name": "sgd", "lr": lr}}) for lr in (0.3, 1e-3, 0.1, 0.03, 0.2)]
    found = packed(specs)
    for spec, emitted in zip(specs, found, strict=True):
        agree(emitted, train(spec, SMALL))
    steps = [emitted.trial["steps"] for emitted in found]
    assert [emitted.trial["status"] for emitted in found] == ["stopped", "completed", *["stopped"] * 3]
    assert len(set(steps)) > 3 and steps[0] < steps[2] < steps[3] < steps[1]


def test_budgets_of_their_own_and_idle_lanes_are_dropped(counts: list[int]) -> None:
    specs = [trial(steps=steps, seed=seed) for seed, steps in enumerate([3, 60, 5, 41, 100, 3])]
    expected = [train(spec, SMALL) for spec in specs]
    for emitted, alone in zip(packed(specs), expected, strict=True):
        agree(emitted, alone)
    steps = counts[2:]  # the first two are the check
    assert steps == sorted(steps, reverse=True) and len(steps) == 100
    # Two of six end after 3 steps: a third. Of the four left, one is no third, but two are, and then one of two.
    assert [steps.count(lanes) for lanes in (6, 4, 2, 1)] == [3, 38, 19, 40]


def test_more_trials_than_lanes(counts: list[int]) -> None:
    specs = [trial(lr, seed=seed, steps=20) for lr in (0.01, 0.1) for seed in range(5)]
    found = packed(specs, lanes=4)
    assert [emitted.trial["lanes"] for emitted in found] == [4] * 8 + [2] * 2
    for spec, emitted in zip(specs, found, strict=True):
        agree(emitted, train(spec, SMALL))
    assert max(counts) == 4


def test_every_measurement_is_as_alone() -> None:
    everything = Measure("ends", *["ends"] * 8)
    specs = [trial(lr, steps=6, seed=seed, model={"name": "mlp", "width": 4, "depth": 2})
             for seed, lr in enumerate((0.01, 0.05, 0.2))]
    for spec, emitted in zip(specs, packed(specs, measure=everything), strict=True):
        alone = train(spec, everything)
        agree(emitted, alone, rel=1e-5)  # of iterations, which end a little earlier or later
        assert {row["step"] for row in alone.steps} == {0, 6} and alone.steps[1]["hessian_max"] is not None


def test_torchs_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    packed([trial(seed=seed, steps=3, knobs={"dropout": {"p": 0.1}}) for seed in range(3)])
    assert torch.equal(torch.rand(3), expected)


# Memory that runs out

def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")])
def test_where_memory_runs_out_half_as_many_are_trained(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    step, begun = Lanes.step, []

    def limited(self: Lanes, gradients: bool = False) -> Any:
        begun.append(self.count)
        if self.count > 4 and self.taken[0] >= 3:  # after the check, half way
            raise error
        return step(self, gradients)
    specs = [trial(seed=seed, steps=3 if seed == 1 else 20) for seed in range(10)]
    expected = [train(spec, SMALL) for spec in specs]
    monkeypatch.setattr(Lanes, "step", limited)
    found = packed(specs, lanes=64)
    for emitted, alone in zip(found, expected, strict=True):
        agree(emitted, alone)
    assert list(dict.fromkeys(begun)) == [10, 5, 2, 1]  # the last of nine is left by itself
    assert [emitted.trial["lanes"] for emitted in found] == [2, 10, *[2] * 7, 1]


def test_memory_that_runs_out_while_a_step_is_recorded_is_no_reason_to_do_without(
        monkeypatch: pytest.MonkeyPatch) -> None:
    record = lanes_module.record
    monkeypatch.setattr(lanes_module, "_recordings", {})
    monkeypatch.setattr(lanes_module, "_trusted", set())
    monkeypatch.setattr(lanes_module, "record",
                        lambda function, given: (full() if len(given[0]) > 4 else None, record(function, given))[1])
    assert [emitted.trial["lanes"] for emitted in packed([trial(seed=seed, steps=3) for seed in range(6)])] == [3] * 6
    assert None not in lanes_module._recordings.values()


def test_memory_for_less_than_two_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lanes, "step", full)
    with pytest.raises(torch.OutOfMemoryError):
        packed([trial(seed=seed) for seed in range(3)])


# Models and knobs that cannot be packed

HEAD = "import math\nimport torch\nfrom torch import nn\n"
NETS = {
    "item": "if h.sum().item() > 0: h = h * 2", "branch": "if h.max() > 0: h = -h",
    "numpy": "h = h + torch.from_numpy(h.detach().numpy() * 0.1)", "draws": "h = h * torch.rand(8, dtype=h.dtype)",
    "dropout": "h = nn.functional.dropout(h, 0.5, self.training)", "raises": "raise ValueError('no')",
    "counts": "self.calls += self.training\n        h = h * (1 + self.calls % 3)"}


def written(folder: Path, source: str) -> str:
    (folder / "net.py").write_text(HEAD + source)
    return f"{folder / 'net.py'}:net"


def module(forward: str, made: str = "self.calls = 0") -> str:
    return f"""
class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first, self.last = nn.Linear(inputs, 8), nn.Linear(8, outputs)
        {made}
    def forward(self, x):
        h = self.first(x.flatten(1))
        {forward}
        return self.last(torch.relu(h))
def net(shape, outputs):
    return Net(math.prod(shape), outputs)
"""


def refused(specs: list[TrialSpec]) -> Exception:
    """What is raised instead of the first trial."""
    with pytest.raises(Exception) as raised:
        next(train_pack(specs, SMALL, "cpu", 64))
    return raised.value


@pytest.mark.parametrize("name", NETS)
def test_a_model_that_cannot_be_a_lane_is_refused_before_anything_is_given_back(name: str, tmp_path: Path) -> None:
    model = {"name": written(tmp_path, module(NETS[name]))}
    error = refused([trial(model=model, seed=seed) for seed in range(3)])
    assert not isinstance(error, StopIteration)
    if name == "counts":
        assert isinstance(error, Unfit) and "the model changes calls as it trains" in str(error)
    if name != "raises":
        assert train(trial(model=model), SMALL).trial["status"] == "completed"


def test_normalization_by_the_batch_alone(tmp_path: Path) -> None:
    """What it gives for the test set depends on how many samples are evaluated at a time."""
    source = ("def net(shape, outputs):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),\n"
              "        nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, outputs))\n")
    error = refused([trial(model={"name": written(tmp_path, source)}, seed=seed) for seed in range(64)])
    assert isinstance(error, Unfit)


def test_a_users_model_that_can_be_packed_is_as_alone(tmp_path: Path) -> None:
    source = module("h = h + self.table @ self.table.T @ torch.ones(8, dtype=h.dtype)",
                    "self.register_buffer('table', torch.arange(24.0).reshape(8, 3) / 100)")
    specs = [trial(model={"name": written(tmp_path, source)}, seed=seed) for seed in range(3)]
    for spec, emitted in zip(specs, packed(specs), strict=True):
        agree(emitted, train(spec, SMALL))


@pytest.mark.parametrize("made", ["self.scale = float(torch.rand(()))",
                                  "self.scale = torch.rand(8, dtype=torch.float64)"])
def test_what_a_users_model_draws_beside_its_parameters_is_its_own(made: str, tmp_path: Path) -> None:
    model = {"name": written(tmp_path, module("h = h * self.scale", made))}
    assert isinstance(refused([trial(model=model, seed=seed) for seed in range(3)]), Unfit)
    for seed in (0, 1):  # packs of one seed each, one after the other, of the same structure
        specs = [trial(lr, model=model, seed=seed) for lr in (0.01, 0.03, 0.1)]
        for spec, emitted in zip(specs, packed(specs), strict=True):
            agree(emitted, train(spec, SMALL))


@pytest.mark.parametrize("method", ["activation", "initial"])
def test_a_knob_that_raises(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ArithmeticError("no")
    monkeypatch.setattr(Dropout, method, fails)
    assert isinstance(refused([trial(seed=seed, knobs={"dropout": {"p": 0.1}}) for seed in range(3)]), ArithmeticError)


def test_a_pack_that_is_given_up_half_way_has_given_back_whole_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [trial(seed=seed, steps=3 if seed == 1 else 20) for seed in range(3)]
    step = Lanes.step
    def fails(self: Lanes, gradients: bool = False) -> Any:
        if self.taken[0] == 10:
            raise ArithmeticError("no")
        return step(self, gradients)
    monkeypatch.setattr(Lanes, "step", fails)
    found = train_pack(specs, SMALL, "cpu", 64)
    spec, emitted = next(found)
    assert spec == specs[1]
    agree(emitted, train(spec, SMALL))
    with pytest.raises(ArithmeticError):
        next(found)
