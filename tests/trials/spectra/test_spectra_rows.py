"""The engine as a whole: eigenvalues, rows, and matrices that cannot be measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted_spectra import noise

from trials import spectra
from trials.errors import UserError

HARD = {
    "nan": torch.tensor([[1.0, math.nan], [0.0, 1.0], [2.0, 2.0]]),
    "infinite": torch.tensor([[1.0, math.inf], [0.0, 1.0], [2.0, 2.0]]),
    "huge": torch.full((3, 2), 1e200, dtype=torch.float64),
    "tiny": torch.full((3, 2), 1e-200, dtype=torch.float64),
    "no entries": torch.zeros(0, 4),
    "complex": torch.ones(3, 2, dtype=torch.complex64),
}


@pytest.mark.parametrize("shape", [(3, 60, 40), (3, 40, 60), (2, 300, 280)])
def test_eigenvalues_are_squared_singular_values_over_the_larger_side(shape):
    stack = noise(0, *shape)
    expected = np.linalg.svd(stack.double().numpy(), compute_uv=False) ** 2 / max(shape[1:])
    np.testing.assert_allclose(spectra.eigenvalues(stack).numpy(), expected, rtol=1e-9, atol=1e-13 * expected.max())


def test_every_metric_is_in_the_row_and_described():
    row = spectra.rows(noise(1, 1, 64, 32))[0]
    names = [column.name for column in spectra.METRICS]
    assert list(row) == [*names, "reason"] and len(set(names)) == len(names)
    assert all(column.help and column.unit for column in spectra.METRICS)
    for group in spectra.GROUPS.values():
        assert set(group.why) <= {column.name for column in group.columns}


def test_the_dtype_does_not_matter():
    whole = torch.randint(-9, 9, (2, 30, 20), generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.int8):
        assert spectra.rows(whole.to(dtype)) == spectra.rows(whole.double())


def test_leading_dimensions_are_flattened_in_order():
    stack = noise(2, 2, 3, 20, 10)
    assert spectra.rows(stack) == spectra.rows(stack.reshape(6, 20, 10))


def test_a_matrix_has_the_same_numbers_alone_and_in_any_stack(monkeypatch):
    stack = noise(3, 7, 48, 32)
    stack[2] *= 1e-3
    together = spectra.rows(stack)
    monkeypatch.setattr(spectra, "_CHUNK", 2 * 48 * 32)  # two at a time
    for other in (spectra.rows(stack), [spectra.rows(matrix)[0] for matrix in stack]):
        for row, same in zip(together, other, strict=True):
            assert row["reason"] == same["reason"]
            for name, value in row.items():
                assert value == same[name] or value == pytest.approx(same[name], rel=1e-9), name


def test_scale_changes_scales_only():
    stack = noise(4, 1, 80, 40)
    one, eight = spectra.rows(stack)[0], spectra.rows(8 * stack)[0]
    for name in ("alpha_raw", "alpha_D", "mp_softrank", "mp_distance", "tw_gap", "entropy", "stable_rank",
                 "condition_number", "entry_gini", "entry_lognormality", "entry_kurtosis"):
        assert eight[name] == pytest.approx(one[name], rel=1e-9), name
    assert eight["lambda_plus"] == pytest.approx(64 * one["lambda_plus"])
    assert eight["sigma_mp"] == pytest.approx(8 * one["sigma_mp"])


@pytest.mark.parametrize("name", HARD)
def test_what_cannot_be_measured_is_null_with_a_reason(name):
    row = spectra.rows(HARD[name])[0]
    assert row.pop("reason")
    assert set(row.values()) == {None}


def test_a_bad_matrix_does_not_disturb_its_neighbours():
    stack = noise(5, 4, 40, 20)
    clean = spectra.rows(stack)
    stack[1, 3, 4] = math.nan
    stack[2] = math.inf
    rows = spectra.rows(stack)
    assert (rows[0], rows[3]) == (clean[0], clean[3])
    assert rows[1]["lambda_max"] is None and rows[1]["reason"] == rows[2]["reason"] != clean[1]["reason"]
    assert spectra.eigenvalues(stack)[1].eq(0).all()


def test_a_zero_matrix_has_a_norm_and_a_rank_but_no_shape():
    row = spectra.rows(torch.zeros(1, 30, 20))[0]
    numbers = {name: value for name, value in row.items() if value is not None and name != "reason"}
    assert numbers == {"lambda_max": 0.0, "frobenius_norm": 0.0, "spectral_norm": 0.0, "hard_rank": 0,
                       "lambda_max_shuffled": 0.0}
    assert "all entries are zero" in row["reason"]


@pytest.mark.parametrize(("matrix", "rank"), [
    (torch.ones(30, 20), 1), (torch.full((20, 20), -0.3), 1), (noise(6, 1, 9), 1), (noise(6, 9, 1), 1),
    (noise(7, 40, 3) @ noise(8, 3, 30), 3), (torch.eye(30, 20), 20),
])
def test_degenerate_matrices_get_no_made_up_numbers(matrix, rank):
    row = spectra.rows(matrix)[0]
    assert row["reason"] and row["hard_rank"] == rank and row["alpha"] is None
    assert row["spectral_norm"] == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=1e-5)
    if rank < min(matrix.shape):
        for name in ("sigma_mp", "mp_softrank", "n_spikes", "tw_gap", "condition_number", "log_determinant"):
            assert row[name] is None, name
    assert all(value is None or isinstance(value, str) or math.isfinite(value) for value in row.values())


def test_groups_can_be_chosen():
    stack = noise(9, 2, 40, 20)
    full, some = spectra.rows(stack)[0], spectra.rows(stack, ("powerlaw", "ranks"))[0]
    assert some["alpha_raw"] == full["alpha_raw"] and some["stable_rank"] == full["stable_rank"]
    assert some["lambda_max_shuffled"] is None and some["reason"] is None
    with pytest.raises(UserError, match="powerlaw"):
        spectra.rows(stack, ("power_law",))
    with pytest.raises(ValueError, match="stack"):
        spectra.rows(torch.ones(3))


def test_an_empty_stack_has_no_rows():
    assert spectra.rows(torch.zeros(0, 8, 4)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_rows():
    stack = noise(10, 5, 96, 64)
    for here, there in zip(spectra.rows(stack), spectra.rows(stack.cuda()), strict=True):
        assert here.pop("reason") == there.pop("reason")
        assert there == pytest.approx(here, rel=1e-3)
