"""A claim that curves become one when a scale is divided out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from analysis.claims.base import CLAIMS, Claim, Verdict, column, setting
from analysis.observe import observations, pooled

if TYPE_CHECKING:
    from analysis.tables import Frames


@CLAIMS.register("collapse")
@dataclass(frozen=True, kw_only=True)
class CollapseClaim(Claim):
    """The column ``collapse`` is one function of over / by^exponent."""

    gives: ClassVar[tuple[str, ...]] = ("exponent",)
    collapse: str = setting(column)
    over: str = setting(column)
    by: str = setting(column)

    def verdict(self, tables: Frames) -> Verdict:
        from analysis.laws.collapse import collapse

        rows = observations(tables, {self.collapse, self.over, self.by}, self.at, self.where)
        fit = collapse(rows, self.over, self.collapse, self.by, cluster="configuration")
        return self.decided(f"{self.collapse} {self.at} = f({self.over} / {self.by}^exponent)", fit.estimates,
                            len(fit.data), fit.method, fit, pooled(rows))
