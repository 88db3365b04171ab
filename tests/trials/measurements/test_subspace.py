"""The gradient in the top space of the Hessian, and the overlap of two spaces."""

from __future__ import annotations

import pytest
import torch
from curvature_cases import CASES, F64, exact_hessian, normal, sample_gradients, snapshot

from trials.measurements import hessian
from trials.measurements.hessian import TOP
from trials.measurements.subspace import MEASUREMENT, fraction, overlap, top_space


@pytest.mark.parametrize("case", CASES)
def test_against_an_eigensolver(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessian, "TOLERANCE", 1e-8)
    module, data = CASES[case]
    shot, vectors = snapshot(module, data), torch.linalg.eigh(exact_hessian(module, data)).eigenvectors[:, -TOP:].T
    assert overlap(top_space(shot), vectors).item() == pytest.approx(1, abs=1e-9)
    g = sample_gradients(module, data).mean(0)
    expected = ((vectors @ g).norm() / g.norm()) ** 2
    assert 0.01 < expected < 0.99
    assert MEASUREMENT.function(shot) == pytest.approx({"gradient_top_fraction": expected.item()}, rel=1e-6)


def test_at_the_tolerance_of_the_columns() -> None:
    module, data = CASES["cross-entropy"]
    vectors = torch.linalg.eigh(exact_hessian(module, data)).eigenvectors[:, -TOP:].T
    assert overlap(top_space(snapshot(module, data)), vectors) > 0.999


def test_overlap_of_planted_spaces() -> None:
    eye = torch.eye(8, dtype=F64)
    assert overlap(eye[:3], eye[:3]) == 1 and overlap(eye[:3], eye[3:6]) == 0
    turned = torch.linalg.qr(normal(3, 3)).Q @ eye[:3]
    assert overlap(eye[:3], turned).item() == pytest.approx(1)
    assert overlap(eye[:4], eye[3:7]).item() == pytest.approx(1 / 4)
    random = [torch.linalg.qr(normal(40, 5, seed=i)).Q.T for i in range(200)]
    overlaps = torch.stack([overlap(torch.eye(40, dtype=F64)[:5], space) for space in random])
    assert abs(overlaps.mean() - 5 / 40) < 4 * overlaps.std() / 200**0.5
    assert fraction(torch.arange(8, dtype=F64), eye[:3]).item() == pytest.approx(5 / 140)
