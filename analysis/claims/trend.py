"""A claim that a number rises, or falls, with an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from analysis.claims import absent
from analysis.claims.base import CLAIMS, Claim, Verdict, column, setting
from analysis.estimates import LEVEL
from analysis.observe import observations, pooled
from trials.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.laws.trend import Trend
    from analysis.tables import Frames


@CLAIMS.register("trend")
@dataclass(frozen=True, kw_only=True)
class TrendClaim(Claim):
    """The column ``trend`` rises or falls with ``over``, by any law: its rank correlation is above or below 0.

    Where some values of ``over`` lack some of the other axes' settings, or seeds, for these diverged there, what such a
    setting shifts at all values alike is taken out.
    """

    gives: ClassVar[tuple[str, ...]] = ("rank_correlation",)
    trend: str = setting(column)
    over: str = setting(column)

    def check(self, place: str) -> None:
        super().check(place)
        if self.trend == "phase":
            raise UserError(f"{place}.trend: a phase is no number; claim the order of phases by phases: LAYER, over: "
                            f"{self.over}, expect: {{order: [...]}}")

    def verdict(self, tables: Frames, level: float = LEVEL) -> Verdict:
        from analysis.laws.trend import trend

        axes = [axis for axis in tables.axes if axis != self.over] if self.over in tables.axes else []
        rows = observations(tables, {self.trend, self.over, *axes}, self.at, self.where)

        def fitted(rows: pd.DataFrame) -> Trend:
            beside = [name for name in (*(axes or ["seed"]), "layer") if name in rows and name != self.over]
            if not beside:
                return trend(rows, self.over, self.trend, level=level)
            rows = rows.assign(beside=rows.groupby(beside, dropna=False, observed=True).ngroup())
            return trend(rows, self.over, self.trend, crossed="beside", level=level)

        fit = fitted(rows)
        doubts = absent.doubts(tables, rows, self.trend, absent.extremes(rows[self.trend]), self.expect, fit.estimates,
                               lambda rows: fitted(rows).estimates)
        return self.decided(f"{self.trend} {self.at} over {self.over}", fit.estimates, len(rows), fit.method, fit,
                            [*absent.said(tables, rows, self.over), *pooled(rows)], doubts=doubts)
