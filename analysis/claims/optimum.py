"""Claims about the best, or the largest stable, value of one axis as a function of another."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from analysis.claims import absent
from analysis.claims.base import CLAIMS, Claim, Verdict, column, one_of, setting
from analysis.claims.law import a_law, check_rivals, laws, preferred
from analysis.estimates import LEVEL
from analysis.laws import forms
from analysis.observe import observations, pooled

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Frames


@dataclass(frozen=True, kw_only=True)
class _OverAxis(Claim):
    """Some value of an axis follows ``law`` over the axis ``over``; ``against`` other laws it is preferred. Undecided
    where the law does not fit."""

    over: str = setting(column)
    law: str = setting(a_law)
    against: tuple[str, ...] = setting(laws, default=())

    def numbers(self) -> tuple[str, ...]:
        return forms.law(self.law).parameters

    def check(self, place: str) -> None:
        check_rivals(self.law, self.against, place)
        if self.expect or not self.against:
            super().check(place)

    @property
    @abstractmethod
    def _sought(self) -> tuple[str, str, Literal["min", "max", "largest_stable"], str]:
        """The axis, the column that decides, how, and all that in words."""

    @abstractmethod
    def _rows(self, tables: Frames) -> pd.DataFrame:
        """What to find it in."""

    def verdict(self, tables: Frames, level: float = LEVEL) -> Verdict:
        from analysis.laws.adequacy import lack_of_fit
        from analysis.laws.optimum import fit_optimum

        rows = self._rows(tables)
        axis, y, mode, words = self._sought
        crossed = "seed" if "seed" in rows else None
        fit, *rivals = (fit_optimum(rows, law, axis, y, self.over, mode=mode, crossed=crossed, level=level)
                        for law in (self.law, *self.against))
        fits = lack_of_fit(fit, fit.data[crossed] if crossed else None)
        answers, notes = preferred(fit, rivals, level)
        notes = [*notes, *fits.notes, *absent.said(tables, rows, self.over, axis), *pooled(rows)]
        return self.decided(f"{words} {self.at} = {fit.law.formula.partition('= ')[2]}, x = {self.over}", fit.estimates,
                            len(rows), fit.method, fit, notes, answers, tuple(rivals),
                            fits.doubts)


@CLAIMS.register("optimum")
@dataclass(frozen=True, kw_only=True)
class OptimumClaim(_OverAxis):
    """The value of the axis ``optimum`` at which the column ``of`` is least (or greatest)."""

    optimum: str = setting(column)
    of: str = setting(column)
    mode: Literal["min", "max"] = setting(one_of("min", "max"), default="min")

    @property
    def _sought(self) -> tuple[str, str, Literal["min", "max", "largest_stable"], str]:
        words = f"{self.optimum} of the {'least' if self.mode == 'min' else 'greatest'} {self.of}"
        return self.optimum, self.of, self.mode, words

    def _rows(self, tables: Frames) -> pd.DataFrame:
        rows = observations(tables, {self.optimum, self.of, self.over, "diverged"}, self.at, self.where)
        rows.loc[rows["diverged"] == 1, self.of] = float("nan")  # tried, but no number
        return rows


@CLAIMS.register("largest_stable")
@dataclass(frozen=True, kw_only=True)
class LargestStableClaim(_OverAxis):
    """The largest value of the axis ``largest_stable`` at which training does not diverge."""

    largest_stable: str = setting(column)

    @property
    def _sought(self) -> tuple[str, str, Literal["min", "max", "largest_stable"], str]:
        return self.largest_stable, "stable", "largest_stable", f"largest stable {self.largest_stable}"

    def _rows(self, tables: Frames) -> pd.DataFrame:
        rows = observations(tables, {self.largest_stable, self.over, "diverged"}, self.at, self.where)
        return rows.assign(stable=1 - rows["diverged"])
