"""What designs that sample share: points from the unit cube, without repetition."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from search_spaces.axes import Axis
from search_spaces.designs.base import FixedDesign, Point, space_size
from trials.errors import UserError
from trials.fields import count


@dataclass(frozen=True)
class SampledDesign(FixedDesign):
    """The first ``trials`` distinct points of an endless sequence: raising ``trials`` keeps those there are."""

    trials: int = count(64, low=1, help="number of points; each is tried with every seed")
    seed: int = count(0, help="seed of the points, apart from the seeds of the trials")

    @abstractmethod
    def unit(self, dimensions: int) -> Iterator[Sequence[float]]:
        """An endless sequence in [0, 1)^dimensions."""

    def check(self, axes: Sequence[Axis]) -> None:
        check_trials(self.trials, axes)

    def size(self, axes: Sequence[Axis]) -> int:
        return self.trials

    def points(self, axes: Sequence[Axis]) -> Iterator[Point]:
        points = (tuple(axis.at(u) for axis, u in zip(axes, unit, strict=True)) for unit in self.unit(len(axes)))
        return islice(points if space_size(axes) is None else _distinct(points), self.trials)


def check_trials(trials: int, axes: Sequence[Axis]) -> None:
    """Raise UserError unless there are axes, and at least ``trials`` points."""
    if not axes:
        raise UserError("space: this design needs at least one axis beside seed; add one, or use design.name: grid")
    size = space_size(axes)
    if size is not None and trials > size:
        raise UserError(f"design.trials: expected at most {size}, the number of points in this space, got {trials}")


def _distinct(points: Iterator[Point]) -> Iterator[Point]:
    seen = set()
    for point in points:
        key = repr(point)  # a point may hold mappings
        if key not in seen:
            seen.add(key)
            yield point
