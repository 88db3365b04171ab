"""Spectra of weight matrices: the one home of every number computed from eigenvalues of X = W^T W / N.

Every module of this package that has a ``GROUP`` adds its metrics: a new metric is one new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from trials.columns import Column
from trials.errors import UserError, did_you_mean
from trials.spectra.eigen import Group, Spectrum

GROUPS: dict[str, Group] = {
    module.name: group
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)
    if (group := getattr(importlib.import_module(f"{__name__}.{module.name}"), "GROUP", None)) is not None
}
METRICS: tuple[Column, ...] = tuple(column for group in GROUPS.values() for column in group.columns)
_CHUNK = 2**22  # entries in work at a time, or one matrix: 32 MiB in float64
_WHOLE = frozenset(column.name for column in METRICS if pa.types.is_integer(column.type))

Row = dict[str, float | int | str | None]


@dataclass(frozen=True, eq=False)
class Metrics:
    """Metrics of K matrices. ``values``: name -> [K] float64 on the matrices' device, NaN for null.

    ``eigenvalues``: [K, M] float64, descending, of X = W^T W / N. ``sound``: [K] bool, False where nothing could be
    measured. ``problem``: why, for these.
    """

    values: dict[str, Tensor]
    eigenvalues: Tensor
    sound: Tensor
    groups: tuple[str, ...]
    problem: str

    def rows(self) -> list[Row]:
        """A dict a matrix: every column of METRICS (null for groups that were not asked for), and ``reason``."""
        table = torch.stack([self.sound.to(torch.float64), *self.values.values()], -1).tolist()  # one copy to the host
        return [self._row(dict(zip(self.values, row[1:], strict=True)), bool(row[0])) for row in table]

    def _row(self, values: dict[str, float], sound: bool) -> Row:
        row: Row = {}
        for column in METRICS:
            value = values.get(column.name, float("nan"))
            null = not sound or value != value or abs(value) == float("inf")
            row[column.name] = None if null else (int(value) if column.name in _WHOLE else value)
        reasons = [next((why for name, why in GROUPS[group].why.items() if row[name] is None), None)
                   for group in self.groups]
        row["reason"] = ("; ".join(filter(None, reasons)) or None) if sound else self.problem
        return row


def weight_metrics(stack: Tensor, groups: Iterable[str] = tuple(GROUPS)) -> Metrics:
    """All metrics of every matrix of a stack [..., N, M] (or [..., M, N]) of any real dtype, on its device.

    Leading dimensions are flattened to K. ``groups`` names modules of this package that have metrics. Nothing is
    copied to the host before ``Metrics.rows``. A matrix that is not finite, singular, constant or tiny gets NaN where
    a number would be made up; it never disturbs the others. Raises ValueError for fewer than 2 dimensions and
    UserError for an unknown group.
    """
    if stack.ndim < 2:
        raise ValueError(f"expected a stack of matrices [..., N, M], got shape {tuple(stack.shape)}")
    chosen = tuple(groups)
    for name in chosen:
        if name not in GROUPS:
            raise UserError(f"spectra: no group of metrics called {name!r}; {did_you_mean(name, GROUPS)}")
    rows, cols = max(stack.shape[-2:]), min(stack.shape[-2:])
    if stack.is_complex() or 0 in stack.shape[-2:]:
        return _nothing(stack, chosen, "complex entries" if stack.is_complex() else "no entries")
    flat = stack.detach().reshape(stack.shape[:-2].numel(), *stack.shape[-2:])
    each = max(1, _CHUNK // (rows * cols))
    parts = [_measure(part, chosen) for part in torch.split(flat, each)]
    values = {name: torch.cat([part[0][name] for part in parts]) for name in parts[0][0]}
    spectra = [part[1] for part in parts]
    return Metrics(values, torch.cat([s.eigenvalues for s in spectra]), torch.cat([s.sound for s in spectra]), chosen,
                   "entries are not finite, or too large or too small to square")


def rows(stack: Tensor, groups: Iterable[str] = tuple(GROUPS)) -> list[Row]:
    """``weight_metrics(stack, groups).rows()``: one dict a matrix."""
    return weight_metrics(stack, groups).rows()


def eigenvalues(stack: Tensor) -> Tensor:
    """Eigenvalues of X = W^T W / N, [K, M] float64, descending; zeros for a matrix that is not finite."""
    return weight_metrics(stack, ()).eigenvalues


def _measure(stack: Tensor, groups: tuple[str, ...]) -> tuple[dict[str, Tensor], Spectrum]:
    spectrum = Spectrum.of(stack)
    values: dict[str, Tensor] = {}
    for name in groups:
        values.update(GROUPS[name].function(spectrum))
    return values, spectrum


def _nothing(stack: Tensor, groups: tuple[str, ...], problem: str) -> Metrics:
    count = stack.shape[:-2].numel()
    nan = torch.full((count,), torch.nan, dtype=torch.float64, device=stack.device)
    return Metrics({c.name: nan for name in groups for c in GROUPS[name].columns},
                   nan.new_zeros((count, min(stack.shape[-2:]))), torch.zeros_like(nan, dtype=torch.bool), groups,
                   problem)
