from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import layer_of, randn

from trials.measurements import diffusion
from trials.streams import generator


def brute(x: np.ndarray) -> float:
    """DSE from the eigenvalues of the row-normalized matrix itself, by the general (not symmetric) solver."""
    n = len(x)
    kernel = np.array([[np.exp(-np.sum((x[i] - x[j]) ** 2) / 200.0) for j in range(n)] for i in range(n)])
    p = np.abs(np.linalg.eigvals(kernel / kernel.sum(1, keepdims=True)))
    p /= p.sum()
    return float(-sum(q * np.log2(q) for q in p if q > 0))


@pytest.mark.parametrize("scale", [0.5, 5.0, 50.0])
def test_entropy_by_brute_force(scale: float) -> None:
    x = scale * randn(30, 4)
    assert float(diffusion.metrics(layer_of(x))["diffusion_entropy"]) == pytest.approx(brute(x.numpy()), abs=1e-8)


def test_limits_of_the_entropy() -> None:
    apart = 1e4 * torch.eye(32, dtype=torch.float64)
    assert float(diffusion.metrics(layer_of(apart))["diffusion_entropy"]) == pytest.approx(5.0)
    groups = apart[:4].repeat_interleave(8, 0)  # 4 groups of coinciding points
    assert float(diffusion.metrics(layer_of(groups))["diffusion_entropy"]) == pytest.approx(2.0, abs=1e-9)


def test_information_by_brute_force() -> None:
    x, labels = 10.0 * randn(24, 3), torch.tensor([0] * 10 + [3] * 8 + [7] * 6)
    x[labels == 3] += 30.0
    expected = 0.0
    for number, label in enumerate((0, 3, 7)):
        own = x[labels == label]
        random = generator(0, "diffusion", number)
        drawn = [brute(x[torch.randperm(24, generator=random)[: len(own)]].numpy()) for _ in range(5)]
        expected += len(own) / 24 * (np.mean(drawn) - brute(own.numpy()))
    found = diffusion.metrics(layer_of(x, labels=labels))["diffusion_information"]
    assert float(found) == pytest.approx(expected, abs=1e-8)


def test_information_is_high_for_separate_classes_and_none_for_random_labels() -> None:
    labels = torch.arange(200) % 4
    centres = 1e3 * torch.eye(4, dtype=torch.float64)[labels] + 1e-3 * randn(200, 4)
    separate = float(diffusion.metrics(layer_of(centres, labels=labels))["diffusion_information"])
    assert separate == pytest.approx(2.0, abs=0.1)  # of 4 classes: random subsets see all four, up to their shares
    unrelated = float(diffusion.metrics(layer_of(20.0 * randn(200, 4), labels=labels))["diffusion_information"])
    assert abs(unrelated) < 0.1


def test_the_subsample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "SAMPLES", 16)
    x = 1e4 * torch.eye(32, dtype=torch.float64)
    assert float(diffusion.metrics(layer_of(x))["diffusion_entropy"]) == pytest.approx(4.0)
