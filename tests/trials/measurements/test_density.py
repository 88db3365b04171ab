"""Stochastic Lanczos quadrature: exact moments, the distribution itself, and its row in the tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curvature_cases import CASES, F64, classification, exact_hessian, mlp, snapshot

from trials.measure import Measure
from trials.measurements.density import MEASUREMENT, density
from trials.records import Rows, schemas
from trials.spec import parse_trial
from trials.trainer import train


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_moments_of_each_start_vector_are_exact_up_to_twice_the_steps(case: str, steps: int) -> None:
    module, data = CASES[case]
    shot, h = snapshot(module, data), exact_hessian(module, data)
    nodes, weights = density(shot, starts=3, steps=steps)
    assert len(nodes) == len(weights) == 3 * steps
    assert torch.equal(nodes, nodes.sort(descending=True).values)
    starts = [shot.stream("density").at(i).normal((len(h),), F64) for i in range(3)]
    for power in range(2 * steps):
        exact = sum(v @ torch.linalg.matrix_power(h, power) @ v / (v @ v) for v in starts) / 3
        torch.testing.assert_close((weights * nodes**power).sum(), exact, rtol=1e-9, atol=1e-12)
    beyond = sum(v @ torch.linalg.matrix_power(h, 2 * steps) @ v / (v @ v) for v in starts) / 3
    assert (weights * nodes ** (2 * steps)).sum() < beyond * (1 - 1e-6)  # the rule ends there, as Gauss's does


def test_moments_are_those_of_the_spectrum_within_their_errors() -> None:
    module, data = CASES["cross-entropy"]
    h = exact_hessian(module, data)
    values, starts = torch.linalg.eigvalsh(h), 400
    nodes, weights = density(snapshot(module, data), starts=starts, steps=8)
    assert weights.sum().item() == pytest.approx(1, rel=1e-12) and (weights >= 0).all()
    size = len(values)
    for power in range(1, 5):
        moments = values**power
        # variance of v^T f(H) v / v^T v over normal v: 2 (mean f^2 - (mean f)^2) / (P + 2)
        error = (2 * moments.var(correction=0) / (size + 2) / starts) ** 0.5
        assert abs((weights * nodes**power).sum() - moments.mean()) < 4 * error


def test_the_whole_spectrum_of_a_small_network() -> None:
    module, data = CASES["squared loss"]
    values = np.linalg.eigvalsh(exact_hessian(module, data))[::-1]
    nodes, _ = density(snapshot(module, data), starts=1)
    np.testing.assert_allclose(nodes, values, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_the_distribution_is_that_of_the_exact_eigenvalues(case: str) -> None:
    """The Kolmogorov-Smirnov distance, looked at between eigenvalues, where both distributions are flat.

    The weight below a gap with a share F of the eigenvalues is Beta(F P/2, (1-F) P/2) for each start, and for all gaps
    together the errors are about those of a Brownian bridge times sqrt(2 / (P + 2)), whose maximum exceeds 1.95 in 1 of
    1,000.
    """
    module, data = CASES[case]
    values, starts = torch.linalg.eigvalsh(exact_hessian(module, data)), 100
    nodes, weights = density(snapshot(module, data), starts=starts)
    apart = values.diff() > 1e-6  # there are several of 0
    gaps = ((values[1:] + values[:-1]) / 2)[apart]
    exact = (values < gaps[:, None]).double().mean(1)
    found = (weights * (nodes < gaps[:, None])).sum(1)
    assert len(gaps) > 20
    assert (found - exact).abs().max() < 1.95 * (2 / (len(values) + 2) / starts) ** 0.5


def test_its_row_is_the_histogram_of_the_eigenvalues() -> None:
    module, data = CASES["relu"]
    exact = np.linalg.eigvalsh(exact_hessian(module, data))
    row = MEASUREMENT.function(snapshot(module, data))["hessian"]
    assert set(row) == {"eigenvalues", *(column.name for column in MEASUREMENT.columns)}
    bins = np.array([exact[0] - 1, -1e-3, 1e-3, exact[-1] / 10, exact[-1] + 1])  # below 0, at 0, and two above
    found, expected = np.histogram(row["eigenvalues"], bins, weights=row["weights"])[0], np.histogram(exact, bins)[0]
    share = expected / len(exact)
    assert (expected > 0).all()
    assert (np.abs(found - share) < 4 * np.sqrt(2 * share * (1 - share) / (len(exact) + 2) / 8)).all()


def test_a_hessian_that_is_not_finite_has_no_row() -> None:
    module = mlp(3, 4, 3)
    module[0].weight.data[0, 0] = torch.nan
    assert MEASUREMENT.function(snapshot(module, classification())) == {}


def test_of_a_trial_there_is_a_row_beside_those_of_its_layers() -> None:
    trial = parse_trial({"task": {"name": "gaussian_regression", "dim": 4, "samples": 50}, "batch_size": 5,
                         "model": {"name": "mlp", "width": 3, "depth": 1}, "budget": {"steps": 4},
                         "optimizer": {"name": "sgd", "lr": 0.05}})
    emitted = train(trial, Measure(curvature="ends", density="ends", eigenvalues="last"))
    table = Rows.build(schemas({}, []), {"spectra": emitted.spectra}).tables["spectra"].to_pylist()
    rows = {(row["step"], row["layer"]): row for row in table}
    assert {key for key, row in rows.items() if row["weights"] is not None} == {(0, "hessian"), (4, "hessian")}
    assert {layer for _, layer in rows} == {"hessian", "fc1", "fc2", "fc1:change", "fc2:change"}
    for row in emitted.steps[0], emitted.steps[-1]:
        nodes, weights = (np.array(rows[row["step"], "hessian"][name]) for name in ("eigenvalues", "weights"))
        assert weights.sum() == pytest.approx(1, rel=1e-12) and (np.diff(nodes) <= 0).all()
        assert nodes[[0, -1]] == pytest.approx([row["hessian_max"], row["hessian_min"]], rel=1e-5)
