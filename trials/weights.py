"""Measure the weight matrices of a model: one eigensolve for each shape among them, not one for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trials.spectra import weight_metrics


def weight_rows(weights: Sequence[Tensor]) -> tuple[list[dict[str, Any]], list[list[float] | None]]:
    """For each matrix its row of metrics (see ``spectra.METRICS``), and its eigenvalues, descending; None where the
    matrix has none (it is not finite, say)."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, weight in enumerate(weights):
        shapes.setdefault((max(weight.shape), min(weight.shape)), []).append(index)
    found: list[dict[str, Any]] = [{} for _ in weights]
    eigenvalues: list[list[float] | None] = [None for _ in weights]
    for (size, cols), indices in shapes.items():
        stack = torch.stack([weights[i] if weights[i].shape == (size, cols) else weights[i].mT for i in indices])
        metrics = weight_metrics(stack)
        spectra, sound = metrics.eigenvalues.tolist(), metrics.sound.tolist()
        for k, (index, row) in enumerate(zip(indices, metrics.rows(), strict=True)):
            found[index] = {"rows": size, "cols": cols, **row}
            if sound[k]:
                eigenvalues[index] = spectra[k]
    return found, eigenvalues
