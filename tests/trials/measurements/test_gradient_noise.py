"""Noise scale, coherence and direction against their definitions, sample by sample."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from curvature_cases import CASES, F64, classification, flat, mlp, normal, regression, sample_gradients, snapshot
from torch import nn

from trials.measurements import objective as objectives
from trials.measurements import sample_gradients as chunked
from trials.measurements.gradient_noise import MEASUREMENT, gradients, moments
from trials.measurements.objective import objective
from trials.measurements.sample_gradients import chunks
from trials.tasks.gaussian_regression import GaussianRegression


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("numbers", [2**24, 100])
def test_gradients_of_samples(case: str, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "NUMBERS", numbers)
    module, data = CASES[case]
    of = objective(snapshot(module, data))
    parts = list(chunks(of))
    assert all(part.numel() <= numbers for part in parts) and (len(parts) > 1) == (numbers == 100)
    rows = [next(k for k, x in enumerate(data.x_train) if torch.equal(x, drawn)) for drawn in of.x_n]
    torch.testing.assert_close(torch.cat(parts), sample_gradients(module, data)[rows], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_columns_by_their_definitions(case: str) -> None:
    module, data = CASES[case]
    g, w = sample_gradients(module, data), flat(module)
    mean = g.mean(0)
    noise = torch.cov(g.T, correction=0).trace()
    units = g / g.norm(dim=1, keepdim=True)
    expected = {
        "full_gradient_norm": mean.norm(),
        "gradient_noise_scale": noise / mean.square().sum(),
        "gradient_coherence": mean.square().sum() / g.square().sum(1).mean(),
        "gradient_m_coherence": (g @ g.T).sum() / g.square().sum(),  # sum over all pairs over sum over equal pairs
        "gradient_direction_variance": torch.cov(units.T, correction=0).trace(),
        "gradient_weight_cosine": torch.cosine_similarity(-mean, w, dim=0),
    }
    row = MEASUREMENT.function(snapshot(module, data))
    assert row == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-9)
    assert set(row) == {column.name for column in MEASUREMENT.columns}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_moments_are_unbiased_over_all_probe_sets(n: int) -> None:
    population = normal(6, 4) + 0.5
    estimates = []
    for chosen in combinations(range(6), n):
        g = population[list(chosen)]
        estimates.append(torch.stack(moments(g.square().sum(1).mean(), g.mean(0).square().sum(),
                                             torch.tensor(float(n)), torch.tensor(6.0))))
    exact = torch.stack([torch.cov(population.T, correction=0).trace(), population.mean(0).square().sum()])
    torch.testing.assert_close(torch.stack(estimates).mean(0), exact, rtol=1e-6, atol=0)


def test_a_probe_set_smaller_than_the_training_set_uses_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "PROBE", 8)
    noisy = MEASUREMENT.function(snapshot(*CASES["cross-entropy"]))  # the estimate of norm(G)^2 is negative here
    assert noisy["gradient_noise_scale"] is None and noisy["full_gradient_norm"] is None
    module, data = CASES["squared loss"]
    shot = snapshot(module, data)
    g = torch.cat(list(chunks(objective(shot))))
    s2, mean = torch.cov(g.T).trace(), g.mean(0)
    square = mean.square().sum() - (1 / 8 - 1 / 20) * s2
    row = MEASUREMENT.function(shot)
    assert row["gradient_noise_scale"] == pytest.approx(((1 - 1 / 20) * s2 / square).item(), rel=1e-9)
    assert row["gradient_m_coherence"] == pytest.approx(20 * row["gradient_coherence"], rel=1e-12)


def test_equal_and_orthogonal_gradients() -> None:
    module = nn.Linear(6, 1, bias=False, dtype=F64)
    module.weight.data.zero_()
    x, y = torch.eye(6, dtype=F64), torch.ones(6, 1, dtype=F64)
    orthogonal = replace(regression(), x_train=x, y_train=y)
    row = MEASUREMENT.function(snapshot(module, orthogonal))
    assert row["gradient_m_coherence"] == pytest.approx(1) and row["gradient_noise_scale"] == pytest.approx(5)
    assert row["gradient_direction_variance"] == pytest.approx(1 - 1 / 6)
    assert row["gradient_weight_cosine"] is None  # the weights are zero
    equal = replace(regression(), x_train=x[:1].expand(6, -1), y_train=y)
    row = MEASUREMENT.function(snapshot(module, equal))
    assert row["gradient_m_coherence"] == pytest.approx(6)
    assert row["gradient_noise_scale"] == pytest.approx(0, abs=1e-12)
    assert row["gradient_direction_variance"] == pytest.approx(0, abs=1e-12)


def test_samples_without_gradient_have_no_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Linear(3, 1, dtype=F64)
    data = regression(n=6)
    fitted = torch.cat([module(data.x_train[:2]).detach(), data.y_train[2:]])
    row = MEASUREMENT.function(snapshot(module, replace(data, y_train=fitted)))
    g = sample_gradients(module, replace(data, y_train=fitted))
    units = g[2:] / g[2:].norm(dim=1, keepdim=True)
    assert row["gradient_direction_variance"] == pytest.approx(torch.cov(units.T, correction=0).trace().item())
    assert row["full_gradient_norm"] == pytest.approx(g.mean(0).norm().item())
    # Of a probe set of 4 the fitted ones are left out, and so is their share of the training set of 6.
    monkeypatch.setattr(objectives, "PROBE", 4)
    shot = snapshot(module, replace(data, y_train=fitted))
    g = torch.cat(list(chunks(objective(shot))))
    units = g[g.norm(dim=1) > 1e-12]
    units = units / units.norm(dim=1, keepdim=True)
    moving = len(units)
    assert 2 <= moving <= 3
    expected = (1 - 1 / (6 * moving / 4)) * torch.cov(units.T).trace().item()
    assert MEASUREMENT.function(shot)["gradient_direction_variance"] == pytest.approx(expected)
    nothing = MEASUREMENT.function(snapshot(module, replace(data, y_train=module(data.x_train).detach())))
    assert nothing == {**dict.fromkeys(nothing), "full_gradient_norm": 0.0}


def test_fresh_data_are_an_infinite_population() -> None:
    """Linear regression at w = 0 with y = x . w*: g = -x x . w*, so G = -w*, E norm(g)^2 = d + 2, noise scale d + 1."""
    d, scales = 5, []
    for seed in range(40):
        data = GaussianRegression(dim=d, samples=400, fresh=True, data_seed=seed).data()
        module = nn.Linear(d, 1, bias=False, dtype=F64)
        module.weight.data.zero_()
        row = MEASUREMENT.function(snapshot(module, data))
        assert row["gradient_m_coherence"] is None
        scales.append(row["gradient_noise_scale"])
    found = torch.tensor(scales)
    assert abs(found.mean() - (d + 1)) < 4 * found.std() / 40**0.5 < 0.2 * (d + 1)


def test_one_sample_has_no_noise_to_measure() -> None:
    data = classification(n=1)
    row = MEASUREMENT.function(snapshot(mlp(3, 4, 3), data))
    assert row["gradient_noise_scale"] is None and row["full_gradient_norm"] is None


def test_models_that_vmap_cannot_do_go_sample_by_sample() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3, dtype=F64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc(x)
            return h if h.abs().max().item() < 1e6 else h / 2  # reads a number

    module, data = Branching(), classification()
    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(module)(data.x_train)
    twin = nn.Linear(3, 3, dtype=F64)
    twin.load_state_dict(module.fc.state_dict())
    assert MEASUREMENT.function(snapshot(module, data)) == pytest.approx(
        MEASUREMENT.function(snapshot(twin, data)), rel=1e-12)


def test_batch_norm_uses_its_stored_statistics() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).to(F64)
    module[1].running_mean.fill_(0.2)
    data = classification()
    found = gradients(snapshot(module, data))
    module.eval()
    torch.testing.assert_close(found.mean_P, sample_gradients(module, data).mean(0), rtol=1e-10, atol=1e-12)
    assert module[1].num_batches_tracked == 0
