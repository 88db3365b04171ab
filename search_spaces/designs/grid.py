"""The full factorial."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from search_spaces.axes import Axis, Values
from search_spaces.designs.base import DESIGNS, FixedDesign, Point
from trials.errors import UserError


@DESIGNS.register("grid")
@dataclass(frozen=True)
class Grid(FixedDesign):
    """Every combination of values exactly once; the last axis varies fastest."""

    def check(self, axes: Sequence[Axis]) -> None:
        for axis in axes:
            if not isinstance(axis, Values):
                raise UserError(f"space.{'.'.join(axis.path)}.num: missing; a grid needs the number of points from "
                                f"{axis.low} to {axis.high}, or values: [...]")

    def size(self, axes: Sequence[Axis]) -> int:
        return math.prod(axis.size for axis in axes if isinstance(axis, Values))

    def points(self, axes: Sequence[Axis]) -> Iterator[Point]:
        return product(*(axis.values for axis in axes if isinstance(axis, Values)))
