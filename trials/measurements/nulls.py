"""From tensors on the device to the values of a row: one transfer, and null for what is not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trials.measurements.base import Values


def values(tensors: Mapping[str, Tensor]) -> Values:
    """Tensors without dimensions, by column, as floats; NaN and infinity, which mean "not defined", as None."""
    table = torch.stack([value.to(torch.float64) for value in tensors.values()]).tolist()
    return {name: value if math.isfinite(value) else None for name, value in zip(tensors, table, strict=True)}


def undefined(like: Tensor) -> Tensor:
    """NaN without dimensions, on the device of ``like``."""
    return torch.full((), torch.nan, dtype=torch.float64, device=like.device)
