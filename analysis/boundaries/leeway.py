"""The surface of a boundary, and other shapes that the data leave room for beside it.

A slope, a location and a width are those in the middle of x, and there another shape has others: one with a cube of the
axis along which the boundary is longer, which no test may find, and the middle third of it alone, whatever the rest
does. Where the cube's p-value is below LEEWAY the intervals hold those of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.boundaries.covariates import are_independent
from analysis.boundaries.firth import Firth, firth

Array = npt.NDArray[np.float64]
LEEWAY = 0.3


@dataclass(frozen=True)
class Surface:
    """A logistic regression over standardized axes, z = (u - center) / scale: ``columns`` 1, z_u, z_v (, z_u^2 or the
    square of ``along``, its cube), and after these what else there is."""

    fit: Firth
    center: Array
    scale: Array
    columns: int

    def raw(self, coefficients: Array) -> Array:
        """Coefficients (..., C) of 1, z_u, z_v (, z_u^2) and others as those of 1, u, v (, u^2)."""
        (u, v), (su, sv) = self.center, self.scale
        change = np.array([[1, -u / su, -v / sv, u * u / su**2], [0, 1 / su, 0, -2 * u / su**2],
                           [0, 0, 1 / sv, 0], [0, 0, 0, 1 / su**2]])
        own = slice(self.columns)
        return np.asarray(coefficients[..., own] @ change[own, own].T)

    @property
    def along(self) -> Array:
        """z_u of each row of the fit (n,), or z_v less the boundary's own in the middle of u: the axis along which the
        boundary is longer, by the spread of the rows that tell of it."""
        u, v = self.fit.design[:, 1], self.fit.design[:, 2]
        spread = [np.average((axis - np.average(axis, weights=self._told)) ** 2, weights=self._told) for axis in (u, v)]
        middle = np.clip(-self.fit.coefficients[0] / self.fit.coefficients[2], v.min(), v.max())
        return np.asarray(u if spread[0] >= spread[1] else v - middle)

    def likely(self) -> tuple[list[Surface], float]:
        """This surface, with the others whose intervals count, and the p-value of "no cube"; NaN where too few values
        tell a cube from a parabola. In the middle of u all have the slope -b1 / b2."""
        fit, t = self.fit, self.along
        own = np.column_stack([fit.design[:, 1:self.columns], *([t**2] if self.columns == 3 else []), t**3])
        design = np.column_stack([np.ones(len(t)), own, fit.design[:, self.columns:]])
        if not are_independent(design[:, 1:]):
            return [self], np.nan
        cubic = replace(self, fit=firth(design, fit.ones, fit.trials, fit.codes), columns=5)
        p = cubic.fit.test(4, 2, 0.0)
        return ([self, cubic, *self._middle()] if p < LEEWAY else [self]), p

    def _middle(self) -> list[Surface]:
        """The straight surface of the rows around the middle of u that hold a third of what is told; none where these
        say too little."""
        fit, away = self.fit, np.abs(self.along)
        order = np.argsort(away)
        told = np.cumsum(self._told[order])
        rows = away <= away[order[np.searchsorted(told, told[-1] / 3)]]
        design = np.delete(fit.design[rows], range(3, self.columns), axis=1)
        if not are_independent(design[:, 1:]):
            return []
        return [replace(self, fit=firth(design, fit.ones[rows], fit.trials[rows], fit.codes[rows]), columns=3)]

    @property
    def _told(self) -> Array:
        """What each row tells of the boundary, (n,): its information on the logit."""
        return np.asarray(self.fit.trials * self.fit.chances * (1.0 - self.fit.chances) + 1e-300)
