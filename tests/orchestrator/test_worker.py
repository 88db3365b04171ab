"""A worker: every trial of its pack comes back once, side by side where that can be and by itself where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import worker as module
from orchestrator.queue import Pack
from orchestrator.worker import Job, Worker
from trials.measure import Measure
from trials.observer import Emitted
from trials.spec import TrialSpec, parse_trial
from trials.trainer import train

torch.set_num_threads(1)

MEASURE = Measure("ends", "none", "none", "none")
NET = """
import math, sys, torch
from torch import nn
class Net(nn.Module):
    def __init__(self, inputs, outputs, how):
        super().__init__()
        self.first, self.last, self.how, self.calls = nn.Linear(inputs, 8), nn.Linear(8, outputs), how, 0
    def forward(self, x):
        h = self.first(x.flatten(1))
        if self.how == "item" and h.sum().item() > 0:
            h = 2 * h
        if self.how == "dropout":
            h = nn.functional.dropout(h, 0.5, self.training)
        if self.how == "counts":
            self.calls += self.training
            h = h * (1 + self.calls % 3)
        if self.how == "raises":
            raise ValueError("no")
        if self.how == "exits":
            sys.exit("enough")
        return self.last(torch.relu(h))
def net(shape, outputs, how):
    return Net(math.prod(shape), outputs, how)
"""


def trial(seed: int = 0, **changes: Any) -> TrialSpec:
    return parse_trial({
        "task": "digits", "model": {"name": "mlp", "width": 8}, "optimizer": {"name": "sgd", "lr": 0.05},
        "budget": {"steps": 5}, "batch_size": 8, "precision": "float64", "seed": seed, **changes})


def results(specs: list[TrialSpec], folder: Path, lanes: int = 64, retries: int = 1) -> dict[str, tuple[Emitted, int]]:
    """What comes back, and after how many attempts, by trial."""
    worker = Worker.__new__(Worker)  # without Ray
    where = str(folder)
    worker.job = Job(MEASURE, {}, (), 1.0, retries, lanes, 60.0, where, where, where, None, 0.0)
    worker.reset_config({"pack": Pack(1, {spec.trial_id: spec for spec in specs},
                                      {spec.trial_id: 0 for spec in specs})})
    found = [(spec.trial_id, (emitted, attempts)) for spec, emitted, attempts in worker.results]
    assert len(found) == len(specs) and {name for name, _ in found} == {spec.trial_id for spec in specs}
    return dict(found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_each_structure_of_a_pack_is_trained_side_by_side(folder: Path) -> None:
    specs = [trial(seed, batch_size=size) for seed in range(3) for size in (4, 8)] + [trial(batch_size=16)]
    found = results(specs, folder)
    for spec in specs:
        emitted, attempts = found[spec.trial_id]
        assert attempts == 1 and emitted.trial["lanes"] == (1 if spec.batch_size == 16 else 3)
        assert emitted.trial["test_loss"] == pytest.approx(train(spec, MEASURE).trial["test_loss"], rel=1e-9)


def test_one_lane_means_one_by_one(folder: Path) -> None:
    found = results([trial(seed) for seed in range(3)], folder, lanes=1)
    assert {emitted.trial["lanes"] for emitted, _ in found.values()} == {1}


@pytest.mark.parametrize("how", ["item", "dropout", "counts"])
def test_a_model_that_cannot_be_packed_is_trained_one_by_one(how: str, folder: Path) -> None:
    specs = [trial(seed, model={"name": f"{folder / 'net.py'}:net", "how": how}) for seed in range(3)]
    for spec, (emitted, attempts) in zip(specs, results(specs, folder).values(), strict=True):
        assert (emitted.trial["status"], emitted.trial["lanes"], attempts) == ("completed", 1, 1)
        assert emitted.trial["test_loss"] == train(spec, MEASURE).trial["test_loss"]


@pytest.mark.parametrize(("how", "said"), [("raises", "ValueError: no"), ("exits", "SystemExit: enough")])
@pytest.mark.parametrize("lanes", [0, 64])
def test_a_model_that_never_works_fails_by_itself(how: str, said: str, lanes: int, folder: Path) -> None:
    broken = [trial(seed, model={"name": f"{folder / 'net.py'}:net", "how": how}) for seed in range(2)]
    fine = [trial(seed) for seed in range(2)]
    found = results([*broken, *fine], folder, lanes)
    for spec in broken:
        emitted, attempts = found[spec.trial_id]
        assert emitted.trial["status"] == "failed" and attempts == 2
        assert str(emitted.trial["reason"]).startswith(said)
    assert {found[spec.trial_id][0].trial["status"] for spec in fine} == {"completed"}


def test_why_trials_were_trained_one_by_one_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "unfit", {})
    said: list[dict[str, str]] = []
    alone = Worker._alone
    monkeypatch.setattr(Worker, "_alone", lambda self, spec: (said.append(self.alone), alone(self, spec))[1])
    for how in ("counts", "item", "raises"):
        results([trial(seed, model={"name": f"{folder / 'net.py'}:net", "how": how}) for seed in range(3)], folder)
    results([trial(seed) for seed in range(3)], folder, lanes=1)  # as was asked for
    [counts, item, raises, asked] = ([*found.values()] for found in said[::3])
    assert counts == ["the model changes calls as it trains"] * 3
    assert len(item) == 3 and all(why.startswith("the model reads numbers into Python") for why in item)
    assert not raises and asked == [""] * 3
    assert len(Worker.unfit) == 2  # what a model does another pack need not find out again; what it raises it may


def test_what_a_pack_left_undone_is_trained_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [trial(seed) for seed in range(4)]

    def first_two(given: list[TrialSpec], *_: object) -> Any:
        for spec in given[:2]:
            yield spec, Emitted({"status": "completed", "lanes": 4})
        raise ArithmeticError("a pack that breaks")
    monkeypatch.setattr(module, "train_pack", first_two)
    assert [emitted.trial["lanes"] for emitted, _ in results(specs, folder).values()] == [4, 4, 1, 1]
