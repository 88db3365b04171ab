"""What fitting a boundary gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.estimates import LEVEL, Estimate
from trials.errors import UserError

Array = npt.NDArray[np.float64]
# boundary: one side is one phase, the other the other; crossover: it changes, but gradually; none: nothing says that it
# changes with these axes.
Kind = Literal["boundary", "crossover", "none"]


@dataclass(frozen=True)
class Boundary:
    """Where an outcome changes from 0 to 1 over two axes, ``y`` against ``x``, by a logistic surface in u = ln x and
    v = ln y (plain x or y where that axis is not ``log``): the curve of probability 1/2.

    ``coefficients`` (C,) are those of 1, u, v and, for a curved boundary, u^2: v*(u) = -(b0 + b1 u + b3 u^2) / b2;
    ``draws`` (R, C) are such as likely as the data leave them. ``estimates`` holds ``slope`` (dv*/du; at the mean of u
    if curved), ``location`` (y on the boundary at the geometric mean of x), ``width`` (of the transition from
    probability 0.1 to 0.9, in units of v) and, where it was fitted, ``curvature``. ``p_none`` is the p-value of "no
    dependence on either axis", ``p_straight`` that of "straight", ``p_cubic`` that of "no cubic" (NaN where one was not
    fitted). ``given`` are further axes, at whose middle all of this is; ``crossed`` names the column of seeds, over
    which it is a mean. ``data`` has the rows: x, y, those given, ``crossed``, ``outcome`` (0 or 1), ``cluster``,
    ``censored`` (left out of the fit) and ``offset`` (what those given add to the logit). ``kind`` and ``because`` say
    what was found.
    """

    x: str
    y: str
    log: tuple[bool, bool]
    outcome: str
    kind: Kind
    because: str
    estimates: Mapping[str, Estimate]
    coefficients: Array = field(repr=False)
    draws: Array = field(repr=False)
    data: pd.DataFrame = field(repr=False)
    p_none: float
    p_straight: float
    method: str
    given: tuple[str, ...] = ()
    crossed: str | None = None
    p_cubic: float = float("nan")

    @property
    def degree(self) -> int:
        """1 of a straight boundary, 2 of a parabola."""
        return len(self.coefficients) - 2

    @property
    def n(self) -> int:
        """Rows fitted."""
        return int((~self.data["censored"]).sum())

    @property
    def scales(self) -> str:
        """What the slope is of over what: ``slope d log(batch_size) / d weight_decay``, with a word on why an axis is
        linear."""
        v, u = (f"d log({name})" if log else f"d {name}" for name, log in
                ((self.y, self.log[1]), (self.x, self.log[0])))
        why = [f"{name} is linear" + ("" if (self.data[name] > 0).all() else ": it holds values that are not above 0")
               for name, log in ((self.x, self.log[0]), (self.y, self.log[1])) if not log]
        return f"slope {v} / {u}" + (f" ({'; '.join(why)})" if why else "")

    def line(self, x: npt.ArrayLike) -> Array:
        """The boundary's y at ``x``, (n,). Raises UserError beyond the data, or where there is no boundary."""
        return np.asarray(self._solve(self.coefficients[None, :], self._inside(x))[0])

    def band(self, x: npt.ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
        """Pointwise interval of the boundary at ``x``: lower and upper y, (n,) each."""
        each = self._solve(self.draws, self._inside(x))
        low, high = np.nanquantile(each, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    def _inside(self, x: npt.ArrayLike) -> Array:
        if self.kind == "none":
            raise UserError(f"no boundary of {self.outcome} in {self.x} and {self.y}: {self.because}")
        points = np.atleast_1d(np.asarray(x, float))
        low, high = self.data[self.x].min(), self.data[self.x].max()
        if len(points) and (points.min() < low * (1 - 1e-9) or points.max() > high * (1 + 1e-9)):
            raise UserError(f"{self.x} beyond the data ({low:g} to {high:g})")
        return np.asarray(np.log(points) if self.log[0] else points)

    def _solve(self, coefficients: Array, u: Array) -> Array:
        curved = coefficients[:, 3:4] if coefficients.shape[1] > 3 else np.zeros((len(coefficients), 1))
        with np.errstate(over="ignore", divide="ignore"):  # where b2 may be 0 the boundary may be anywhere
            v = -(coefficients[:, :1] + coefficients[:, 1:2] * u + curved * u**2) / coefficients[:, 2:3]
            return np.asarray(np.exp(v) if self.log[1] else v)
