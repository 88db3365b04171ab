"""Independent uniform points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.designs.base import DESIGNS
from search_spaces.designs.sampled import SampledDesign

CHUNK = 1024


@DESIGNS.register("random")
@dataclass(frozen=True)
class Random(SampledDesign):
    """Random search: uniform on each axis, log-uniform on a log scale (Bergstra & Bengio 2012, JMLR 13:281)."""

    def unit(self, dimensions: int) -> Iterator[Sequence[float]]:
        generator = np.random.default_rng(self.seed)
        while True:
            yield from generator.random((CHUNK, dimensions)).tolist()
