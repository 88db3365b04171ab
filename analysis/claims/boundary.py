"""A claim about where over two axes an outcome changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from analysis.claims import absent
from analysis.claims.base import CLAIMS, Claim, Verdict, cell, column, columns, number, setting
from analysis.estimates import LEVEL, Answer
from analysis.observe import observations, pooled, unmeasured
from analysis.phase_names import PHASES
from trials.errors import UserError, did_you_mean
from trials.records import COLUMNS, FINAL

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Frames

ALPHA = 0.05  # of the test that an axis which is pooled does not move the boundary

# Numbers that are measured, and so nowhere exactly one of two.
_MEASURED = frozenset(column.name for columns in COLUMNS.values() for column in columns
                      if pa.types.is_floating(column.type))


_COLUMNS = frozenset(column.name for columns in COLUMNS.values() for column in columns)
# The words that columns of words hold.
_WORDS: dict[str, tuple[str, ...]] = {"phase": PHASES, "status": FINAL}


def _pair(value: Any, place: str, known: Collection[str]) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) != 2 or value[0] == value[1]:
        raise UserError(f"{place}: expected two different values, got {value!r}")
    return tuple(cell(one, place) for one in value)


@CLAIMS.register("boundary")
@dataclass(frozen=True, kw_only=True)
class BoundaryClaim(Claim):
    """The outcome changes across a curve in the plane of the two axes ``in``, the second as a function of the first.

    Axes count in logarithms where all their values are above 0. The outcome is the column ``boundary`` itself (0 or 1),
    or whether it is ``above`` a number, or which of two values it has (``between`` these two, such as two phases; rows
    with others are left out). Further axes ``given`` may move the boundary, which is reported at their middle; it is
    undecided where one that is not given moves it.
    Trials that were stopped early, before the outcome showed, are censored. Undecided where the boundary is of another
    shape than a line or a parabola (boundaries/shape.py), or departs from one without a formula
    (boundaries/levelset.py), by more than chance.
    """

    gives: ClassVar[tuple[str, ...]] = ("slope", "location", "width", "curvature")
    boundary: str = setting(column)
    in_: tuple[str, ...] = setting(columns)
    given: tuple[str, ...] = setting(columns, default=())
    above: float | None = setting(number, default=None)
    between: tuple[Any, ...] = setting(_pair, default=())

    def check(self, place: str) -> None:
        super().check(place)
        if len(set(self.in_)) != 2:
            raise UserError(f"{place}.in: expected two different columns, got {', '.join(self.in_)}")
        if self.boundary in self.in_:
            raise UserError(f"{place}.in: expected columns other than {self.boundary}, whose boundary is sought")
        if twice := {*self.given} & {*self.in_, self.boundary, "seed"}:
            raise UserError(f"{place}.given: expected axes beside {', '.join(self.in_)} and seed, got {min(twice)}")
        if len({*self.given}) < len(self.given):
            raise UserError(f"{place}.given: a column is given twice; remove one")
        if measured := {*self.given} & _COLUMNS:
            raise UserError(f"{place}.given: expected axes of the study, got {min(measured)}, a column of results")
        if self.above is not None and self.between:
            raise UserError(f"{place}: expected above or between, not both")
        if self.above is None and not self.between and self.boundary != "diverged":
            raise UserError(f"{place}: says of no value of {self.boundary} on which side it is; give above or between")
        for value in self.between:
            if value not in (there := _WORDS.get(self.boundary, self.between)):
                raise UserError(f"{place}.between: no {self.boundary} is called {value!r}; "
                                f"{did_you_mean(str(value), there)}")

    @property
    def hopeless(self) -> str:
        if self.boundary not in _MEASURED or not self.between:
            return ""
        return (f"between names two values, such as phases, but {self.boundary} is a measured number, hardly ever "
                f"exactly {' or '.join(map(str, self.between))}; give above: NUMBER")

    def verdict(self, tables: Frames, level: float = LEVEL) -> Verdict:
        import pandas as pd

        from analysis.boundaries.levelset import agreement
        from analysis.boundaries.pooling import pooled_axes
        from analysis.boundaries.shape import shape_test
        from analysis.boundaries.surface import fit_boundary

        axes = [axis for axis in tables.axes if axis not in ("seed", self.boundary)]
        crossed = "seed" if "seed" in tables.trials and "seed" not in self.in_ else None
        columns = {self.boundary, *self.in_, *self.given, *axes, *([crossed] if crossed else [])}
        rows = observations(tables, columns, self.at, self.where)
        for name in (*self.in_, *([] if self.above is None else [self.boundary])):
            if not pd.api.types.is_numeric_dtype(rows[name]):
                raise UserError(f"boundary: column {name!r} holds {rows[name].dtype}; give a column of numbers")
        if empty := unmeasured(rows, [self.boundary]):
            raise UserError(f"boundary: {empty}")
        rows = self._outcomes(rows)
        x, y = self.in_
        curved = True if "curvature" in self.expect else None
        log = (bool((rows[x] > 0).all()), bool((rows[y] > 0).all()))
        fit = fit_boundary(rows, self._name, x, y, log=log, given=self.given, cluster="configuration", crossed=crossed,
                           censored="censored", curved=curved, level=level)
        about = f"{self._name} over {x} and {y} {self.at}, {fit.scales}"
        lacking = absent.said(tables, rows, *dict.fromkeys((x, y, *axes)))
        if fit.kind == "none":
            return self.decided(about, fit.estimates, fit.n, fit.method, fit,
                                [f"no boundary here: {fit.because}", *lacking], ["undecided"])
        shape, check = shape_test(fit), agreement(fit)
        others = pooled_axes(rows, fit, axes)
        moving = [axis for axis, p in others.items() if p * len(others) < ALPHA]
        doubtful = fit.kind == "crossover" or shape.misleads or check.misleads or moving
        answers: list[Answer] = ["undecided"] if doubtful else []
        notes = [f"{fit.kind}: {fit.because}", fit.scales, *lacking, *pooled(rows),
                 *([f"pools {', '.join(f'{axis} (p = {p:.2g})' for axis, p in others.items())}"] if others else []),
                 *([f"but {' and '.join(moving)} moves it; add given: [{', '.join(moving)}]"] if moving else []),
                 f"{'but ' if shape.misleads else ''}{shape.because}",
                 *([f"but not this line: {check.because}"] if check.misleads else [])]
        return self.decided(about, fit.estimates, fit.n, fit.method, fit, notes, answers)

    @property
    def _name(self) -> str:
        if self.between:
            return f"{self.between[1]} rather than {self.between[0]}"
        return self.boundary if self.above is None else f"{self.boundary} above {self.above:g}"

    def _outcomes(self, rows: pd.DataFrame) -> pd.DataFrame:
        values = rows[self.boundary]
        if self.between:
            rows = rows[values.isin(list(self.between))]
            outcome = (rows[self.boundary] == self.between[1]).astype(int)
        elif self.above is not None:
            rows = rows[np.isfinite(values.astype(float))]
            outcome = (rows[self.boundary].astype(float) > self.above).astype(int)
        else:
            outcome = values.astype(int)
        early = (rows["status"] == "stopped") & (outcome == 0)
        return rows.assign(censored=early, **{self._name: outcome})
