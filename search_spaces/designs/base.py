"""What a design is: an ordered stream of points, each once per seed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from search_spaces.axes import Axis
from trials.registry import Registry

Point = tuple[Any, ...]  # a value for each axis
Pair = tuple[Point, int]  # a point and a seed: one trial
Results = Callable[[Sequence[Pair]], list[Mapping[str, Any] | None]]  # rows of the trials table, None where not yet


class Design(ABC):
    """Base of all designs: a frozen dataclass whose fields are declared with ``trials.fields``.

    ``axes`` never hold the seed, which replicates every point.
    """

    @abstractmethod
    def check(self, axes: Sequence[Axis]) -> None:
        """Raise UserError where the design cannot cover these axes."""

    @abstractmethod
    def size(self, axes: Sequence[Axis]) -> int:
        """Number of points, in constant time."""

    @abstractmethod
    def stream(self, axes: Sequence[Axis], seeds: Sequence[int], results: Results) -> Iterator[Pair | None]:
        """Every (point, seed), in order. None means: go on once all trials given so far have results.

        A pure function of its arguments and of the results, so that a design interrupted anywhere starts over and
        gives the same trials again.
        """


class FixedDesign(Design):
    """A design that does not depend on results. Seeds are outermost, so the whole surface exists after the first."""

    @abstractmethod
    def points(self, axes: Sequence[Axis]) -> Iterator[Point]:
        """Every point once."""

    def stream(self, axes: Sequence[Axis], seeds: Sequence[int], results: Results) -> Iterator[Pair | None]:
        for seed in seeds:
            for point in self.points(axes):
                yield point, seed


DESIGNS: Registry[Design] = Registry("design", "search_spaces.designs")


def space_size(axes: Sequence[Axis]) -> int | None:
    """Number of points that there are; None if they are a continuum."""
    sizes = [axis.size for axis in axes]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)
