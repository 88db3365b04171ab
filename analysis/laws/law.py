"""What a law is, and what fitting one gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analysis.estimates import LEVEL, Estimate
from trials.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]


def without(values: Array, basis: Array) -> Array:
    """``values`` (..., n) less their part in what an orthonormal ``basis`` (n, q) spans."""
    return np.asarray(values - (values @ basis) @ basis.T)


@dataclass(frozen=True)
class Law:
    """y as a function of one or more inputs, up to parameters.

    ``predict(parameters (P,), x (n, inputs)) -> (n,)``. ``start(x, y)`` gives starting points (P,) for a fit, the best
    guess first. ``positive`` says which parameters are positive (they are fitted as logarithms). ``log`` laws are
    fitted to ln y: errors are relative, and y must be positive.
    """

    name: str
    formula: str
    source: str
    parameters: tuple[str, ...]
    predict: Callable[[Array, Array], Array] = field(repr=False)
    start: Callable[[Array, Array], Sequence[Array]] = field(repr=False)
    positive: tuple[bool, ...] = ()
    inputs: int = 1
    log: bool = True


@dataclass(frozen=True)
class LawFit:
    """A law fitted to rows of a table.

    ``x`` and ``y`` name the columns. ``estimates`` has an Estimate for each parameter, in the law's order. ``data`` has
    the rows used: the columns of ``x`` and ``y``, ``fitted``, ``residual`` (of ln y for log laws), ``leverage`` and
    ``cluster`` (rows of one cluster share their chance). ``sigma`` is the standard deviation of residuals, ``draws``
    (R, P) parameters as likely as the data leave them, for bands. ``method`` says how the intervals were made.
    """

    law: Law
    x: tuple[str, ...]
    y: str
    estimates: Mapping[str, Estimate]
    data: pd.DataFrame = field(repr=False)
    sigma: float
    aicc: float
    draws: Array = field(repr=False)
    method: str

    @property
    def n(self) -> int:
        """Rows used."""
        return len(self.data)

    @property
    def parameters(self) -> Array:
        """The fitted parameters, (P,)."""
        return np.array([estimate.value for estimate in self.estimates.values()])

    def predict(self, x: npt.ArrayLike, extrapolate: bool = False) -> Array:
        """The law at ``x``, (n,) or (n, inputs). Raises UserError beyond the data unless ``extrapolate``."""
        return self.law.predict(self.parameters, self._inside(x, extrapolate))

    def band(self, x: npt.ArrayLike, level: float = LEVEL, extrapolate: bool = False) -> tuple[Array, Array]:
        """Pointwise interval of the law at ``x``: its lower and upper end, (n,) each."""
        inputs = self._inside(x, extrapolate)
        each = np.array([self.law.predict(parameters, inputs) for parameters in self.draws])
        low, high = np.nanquantile(each, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    def between(self, low: Array, high: Array) -> LawFit:
        """With other ends of its intervals, (P,) each."""
        ends = zip(self.estimates.items(), low, high, strict=True)
        return replace(self, estimates={name: Estimate(each.value, float(below), float(above), each.level)
                                        for (name, each), below, above in ends})

    def _inside(self, x: npt.ArrayLike, extrapolate: bool) -> Array:
        inputs = np.asarray(x, float).reshape(-1, self.law.inputs)
        for place, name in enumerate(self.x):
            low, high = self.data[name].min(), self.data[name].max()
            beyond = inputs[(inputs[:, place] < low * (1 - 1e-9)) | (inputs[:, place] > high * (1 + 1e-9)), place]
            if len(beyond) and not extrapolate:
                raise UserError(f"{self.law.name}: {name} = {beyond[0]:g} lies beyond the data ({low:g} to {high:g}); "
                                "ask for extrapolation if that is meant")
        return inputs
