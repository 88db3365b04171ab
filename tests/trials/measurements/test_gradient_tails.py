"""Hill's estimate on planted tails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curvature_cases import CASES, sample_gradients, snapshot

from trials.measurements import gradient_tails
from trials.measurements.gradient_tails import MEASUREMENT, tail_index
from trials.streams import Stream


@pytest.mark.parametrize("exponent", [0.8, 1.5, 3.0])
def test_pareto_tails_and_their_errors(exponent: float) -> None:
    """Norms that follow a power law above their upper tenth and are uniform below."""
    estimates, errors = [], []
    for seed in range(300):
        u = Stream.of(seed, "tail").uniform((1000,), torch.float64)
        norms = torch.where(u < 0.15, (u / 0.15) ** (-1 / exponent), u)
        index, error = tail_index(norms)
        assert error.item() == pytest.approx(index.item() / 10)  # k = 100
        estimates.append(index.item())
        errors.append(error.item())
    found = np.array(estimates)
    assert found.mean() == pytest.approx(exponent * 100 / 99, rel=4 * 0.1 / 300**0.5)  # E k / Gamma(k) = k / (k - 1)
    assert np.mean(errors) == pytest.approx(found.std(), rel=0.15)
    assert 0.92 <= np.mean(np.abs(found - exponent) < 1.96 * np.array(errors)) <= 0.98


def test_by_hand() -> None:
    norms = torch.cat([torch.full((90,), 0.5), torch.full((10,), 2.0)]).double()  # k = 10, the eleventh is 0.5
    index, error = tail_index(norms)
    assert index.item() == pytest.approx(1 / np.log(4)) and error.item() == pytest.approx(index.item() / 10**0.5)


def test_a_light_tail_has_a_large_index() -> None:
    norms = Stream.of(0, "tail").normal((5000,), torch.float64).abs()
    assert tail_index(norms)[0] > 4


def test_no_tail_no_number() -> None:
    for norms in (torch.rand(99), torch.ones(500), torch.zeros(500), torch.cat([torch.zeros(480), torch.rand(20)]),
                  torch.cat([torch.zeros(450), torch.ones(50)]), torch.full((500,), torch.nan)):
        assert all(value.isnan() for value in tail_index(norms.double()))


def test_column(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = CASES["cross-entropy"]
    few = MEASUREMENT.function(snapshot(module, data))
    assert few == {"gradient_tail_index": None, "gradient_tail_index_error": None}
    monkeypatch.setattr(gradient_tails, "SMALLEST_TAIL", 2)
    norms = np.sort(sample_gradients(module, data).norm(dim=1))[::-1]
    expected = 2 / np.log(norms[:2] / norms[2]).sum()
    assert MEASUREMENT.function(snapshot(module, data)) == pytest.approx(
        {"gradient_tail_index": expected, "gradient_tail_index_error": expected / 2**0.5})
