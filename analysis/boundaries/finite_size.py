"""Finite-size scaling: does a transition sharpen with size, as one of infinite systems does, or is it a crossover?

p = f((v - v_c) (L / L0)^(1/nu)), f(z) = 1 / (1 + exp(-c - a z)): curves of all sizes L cross at v_c and fall onto one
(Fisher & Barber, "Scaling theory for finite-size effects in the critical region", PRL 1972). What they have in common
there need not be 1/2. Fitted for each exponent w = 1/nu as a logistic regression on 1, v L^w and (L^w - 1) / w, whose
last column is ln L at w = 0, where v_c is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import f as f_distribution

from analysis.boundaries.firth import Firth, firth
from analysis.boundaries.surface import coordinates, outcome_table
from analysis.estimates import LEVEL, Estimate
from analysis.figures.style import spans_decades
from trials.errors import UserError

Array = npt.NDArray[np.float64]
EXPONENTS = (-2.0, 6.0)  # searched; an interval that reaches an end is open there
LEAST_SIZES = 3


@dataclass(frozen=True)
class FiniteSize:
    """``estimates``: ``critical`` (v_c as a value of the column) and ``exponent`` (1/nu). ``kind``: transition where the
    interval of 1/nu lies above 0, none where the outcome does not depend on v, else crossover; ``because`` says it in
    words. ``n`` rows were fitted, by ``method``."""

    estimates: Mapping[str, Estimate]
    kind: Literal["transition", "crossover", "none"]
    because: str
    n: int
    method: str


@dataclass(frozen=True)
class _Counts:
    """Points: v around its mean and ln L around its mean, ones of trials, and the clusters of rows."""

    v: Array
    size: Array
    ones: Array
    trials: Array
    clusters: Array

    def design(self, w: float) -> Array:
        """Columns 1, v L^w and (L^w - 1) / w, the latter two of unit root mean square."""
        grown = self.v * np.exp(w * self.size)
        shift = self.size if abs(w) < 1e-6 else np.expm1(w * self.size) / w
        return np.column_stack([np.ones(len(self.v)), grown, shift])

    def fit(self, w: float) -> Firth:
        return firth(self.design(w), self.ones, self.trials, self.clusters)
