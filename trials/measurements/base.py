"""What a measurement is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from trials.columns import Column
from trials.network import Network
from trials.optimizers.base import Params
from trials.streams import Stream
from trials.tasks.base import Data

T = TypeVar("T")
Values = Mapping[str, float | int | None]  # column -> value; None is null


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A trial at one moment: what measurements look at. Nothing here may be changed.

    ``params`` and ``buffers`` are the network's tensors now, ``initial`` and ``initial_buffers`` those before
    training; ``lr`` and ``momentum`` those of the
    optimizer (0 where it has none); ``stream(purpose)`` gives random numbers of (trial seed, purpose, step), so that a
    measurement never shifts the training's. ``trial`` and ``kept`` are kept from one snapshot of a trial to the next:
    the first for ``once``, the second, which may be written to and is saved with the trial, for tensors by name.
    """

    network: Network
    params: Params
    buffers: Params
    initial: Params
    initial_buffers: Params
    data: Data
    step: int
    batch_size: int
    lr: float
    momentum: float
    root: Stream
    trial: dict[Any, Any] = field(default_factory=dict, repr=False)
    kept: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _shared: dict[Any, Any] = field(default_factory=dict, repr=False)

    def stream(self, purpose: str) -> Stream:
        """Random numbers for ``purpose`` at this step."""
        from trials.streams import derive

        return self.root.at(derive(0, purpose) >> 1).at(self.step)

    def shared(self, function: Callable[[Snapshot], T]) -> T:
        """``function(self)``, computed once: what several measurements build on (activations, gradients)."""
        if function not in self._shared:
            self._shared[function] = function(self)
        result: T = self._shared[function]
        return result

    def once(self, function: Callable[[Snapshot], T]) -> T:
        """``function(self)``, computed once in a trial: what depends on the initial parameters alone."""
        if function not in self.trial:
            self.trial[function] = function(self)
        result: T = self.trial[function]
        return result


@dataclass(frozen=True)
class Measurement:
    """One file of this package defines one (or a few that share their work), called ``MEASUREMENT``.

    ``group`` is the word in the study's ``measure:`` block that switches it on (see ``trials.measure``). ``columns``
    are added to ``table``: ``steps`` (``function`` returns one mapping), ``layers`` or ``spectra`` (a mapping for each
    layer by its name). ``function`` never raises for numbers it cannot give: those are None.
    """

    group: str
    table: str
    columns: tuple[Column, ...]
    function: Callable[[Snapshot], Any]


def parameters_vector(params: Params) -> Tensor:
    """All parameters as one vector (P,), in their order."""
    import torch

    return torch.cat([value.reshape(-1) for value in params.values()])
