"""Eigenvalues of a whole stack of equally shaped weight matrices, and what every group of metrics starts from.

Shape suffixes here and in the other files of this package: K matrices of a stack, N rows and M columns (N >= M).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from trials.columns import Column

T = TypeVar("T")
EPS = torch.finfo(torch.float64).eps
_BLOCK = 256  # columns of the Gram matrix at a time, where there are more


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A stack of matrices W and the eigenvalues of X = W^T W / N.

    weights: [K, N, M] with N >= M, float32 or float64; a matrix that cannot be measured is replaced by zeros.
    eigenvalues: [K, M] float64, descending, not negative. They come from the Gram matrix, so that each is exact to the
    ``resolution`` = 2 sqrt(N) eps lambda_max, eps = 2.2e-16 (a few times less as a rule), and a singular value below
    2e-8 N^(1/4) of the largest is lost: about the rounding of float32 weights.
    sound: [K] bool, False for a matrix with NaN or infinite entries, or entries too large or too small to square.
    """

    weights: Tensor
    eigenvalues: Tensor
    sound: Tensor
    _shared: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, stack: Tensor) -> Spectrum:
        """The spectrum of a stack [K, N, M] or [K, M, N] with at least one entry a matrix."""
        weights = stack if stack.shape[-2] >= stack.shape[-1] else stack.mT
        if weights.dtype not in (torch.float32, torch.float64):
            weights = weights.to(torch.float64)
        gram = _gram(weights)
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        sound = trace.isfinite()
        if bool((~sound | (trace < 1e-290)).any()):
            sound &= (trace >= 1e-290) | ~weights.flatten(1).any(-1)
            weights = torch.where(sound[:, None, None], weights, torch.zeros_like(weights))
            gram = torch.where(sound[:, None, None], gram, torch.zeros_like(gram))
        eigenvalues = torch.linalg.eigvalsh(gram).flip(-1).clamp(min=0.0)
        return cls(weights, eigenvalues, sound)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return self.weights.shape[-2], self.weights.shape[-1]

    @property
    def resolution(self) -> Tensor:
        """[K] the size below which an eigenvalue is rounding: 2 sqrt(N) eps lambda_max."""
        return self.eigenvalues[:, 0] * (2.0 * math.sqrt(self.shape[0]) * EPS)

    @property
    def positive(self) -> Tensor:
        """[K, M] the eigenvalues, zero where they are rounding."""
        return torch.where(self.eigenvalues > self.resolution[:, None], self.eigenvalues, 0.0)

    @property
    def rank(self) -> Tensor:
        """[K] int64: eigenvalues above the resolution."""
        return (self.eigenvalues > self.resolution[:, None]).sum(-1)

    def shared(self, function: Callable[[Spectrum], T]) -> T:
        """``function(self)``, computed once: what several groups of metrics build on."""
        if function not in self._shared:
            self._shared[function] = function(self)
        result: T = self._shared[function]
        return result


def _gram(weights: Tensor) -> Tensor:
    """[K, N, M] -> W^T W / N, [K, M, M] float64; what is far above the diagonal is left out: eigvalsh reads below."""
    rows, cols = weights.shape[-2:]
    weights = weights.to(torch.float64)
    if cols <= _BLOCK:
        return (weights.mT @ weights) / rows
    gram = weights.new_zeros((*weights.shape[:-2], cols, cols))
    for start in range(0, cols, _BLOCK):
        stop = min(start + _BLOCK, cols)
        gram[..., start:stop, :stop] = weights[..., start:stop].mT @ weights[..., :stop]
    return gram.div_(rows)


@dataclass(frozen=True)
class Group:
    """Metrics that are computed together: one file of this package has one, called ``GROUP``.

    ``function`` maps a Spectrum to a tensor [K] for each column; NaN is null. ``why`` maps some columns to the reason
    given in a row where they are null; the first such column speaks for the group.
    """

    columns: tuple[Column, ...]
    function: Callable[[Spectrum], Mapping[str, Tensor]]
    why: Mapping[str, str]
