"""A scrambled Sobol sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.designs.base import DESIGNS
from search_spaces.designs.sampled import SampledDesign

CHUNK = 1024  # a power of 2, as the sequence wants of its first draw


@DESIGNS.register("sobol")
@dataclass(frozen=True)
class Sobol(SampledDesign):
    """Low-discrepancy points that fill the space evenly, best where ``trials`` is a power of 2 (Sobol' 1967; scrambled
    after Matousek 1998, by scipy)."""

    def unit(self, dimensions: int) -> Iterator[Sequence[float]]:
        from scipy.stats import qmc  # half a second that other designs need not wait

        sequence = qmc.Sobol(dimensions, scramble=True, seed=np.random.default_rng(self.seed))
        while True:
            yield from sequence.random(CHUNK).tolist()
