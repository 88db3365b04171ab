"""The shuffled control: the same entries, no arrangement left, and no randomness from run to run."""

from __future__ import annotations

import pytest
import torch
from planted_spectra import noise, with_spikes

from trials import spectra
from trials.spectra import control

CPU = torch.device("cpu")


def test_a_permutation_of_all_entries():
    order = control.permutation(30, 20, CPU)
    assert order.sort()[0].tolist() == list(range(600))
    control.permutation.cache_clear()
    assert control.permutation(30, 20, CPU).tolist() == order.tolist()
    assert (order - torch.arange(600)).abs().double().mean().item() == pytest.approx(200, rel=0.1)  # E|i - j| = n / 3


def test_the_columns_are_those_of_the_shuffled_matrix():
    stack = with_spikes(0, 3, 90, 40, [5.0])
    shuffled = stack.flatten(1)[:, control.permutation(90, 40, CPU).long()].reshape(stack.shape)
    for row, other in zip(spectra.rows(stack), spectra.rows(shuffled), strict=True):
        assert row["lambda_max_shuffled"] == pytest.approx(other["lambda_max"])
        assert row["sigma_shuffled"] == pytest.approx(other["sigma_mp"])
        assert row["randomized_traps"] == other["n_spikes"]


def test_structure_shows_against_the_control_and_noise_does_not():
    low_rank, iid = with_spikes(1, 1, 200, 100, [8.0, 6.0]), noise(2, 1, 200, 100)
    structured, plain = spectra.rows(torch.cat([low_rank, iid]))
    assert structured["lambda_max"] > 4 * structured["lambda_max_shuffled"]
    assert structured["sigma_bulk"] < 0.9 * structured["sigma_shuffled"]
    assert plain["lambda_max"] == pytest.approx(plain["lambda_max_shuffled"], rel=0.1)
    assert plain["sigma_mp"] == pytest.approx(plain["sigma_shuffled"], rel=1e-9)
    assert structured["randomized_traps"] == plain["randomized_traps"] == 0


def test_huge_single_entries_are_traps():
    matrix = noise(3, 200, 100)
    matrix[3, 4], matrix[50, 60], matrix[70, 80] = 60.0, -50.0, 40.0
    assert spectra.rows(matrix)[0]["randomized_traps"] == 3
