"""A claim that curves become one when a scale is divided out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from analysis.claims import absent
from analysis.claims.base import CLAIMS, Claim, Verdict, column, setting
from analysis.estimates import LEVEL, UNLIKELY
from analysis.observe import observations, pooled

if TYPE_CHECKING:
    from analysis.tables import Frames


@CLAIMS.register("collapse")
@dataclass(frozen=True, kw_only=True)
class CollapseClaim(Claim):
    """The column ``collapse`` is one function of over / by^exponent.

    Undecided where curves differ, whatever the exponent: that of no collapse is the number of nothing.
    """

    gives: ClassVar[tuple[str, ...]] = ("exponent",)
    collapse: str = setting(column)
    over: str = setting(column)
    by: str = setting(column)

    def verdict(self, tables: Frames, level: float = LEVEL) -> Verdict:
        from analysis.laws.collapse import collapse

        rows = observations(tables, {self.collapse, self.over, self.by}, self.at, self.where)
        fit = collapse(rows, self.over, self.collapse, self.by, cluster="configuration",
                       crossed="seed" if "seed" in rows else None, level=level)
        tested = f"p = {fit.p_collapse:.2g}, F test of a shift and a tilt of each {self.by} against one curve"
        notes, doubts = [*absent.said(tables, rows, self.by, self.over), *pooled(rows)], []
        if math.isnan(fit.p_collapse):
            doubts = ["too few means to test whether there is one curve"]
        elif fit.p_collapse < UNLIKELY:
            doubts = [f"no exponent makes one curve: {tested}"]
        else:
            notes = [f"one curve: {tested}", *notes]
        return self.decided(f"{self.collapse} {self.at} = f({self.over} / {self.by}^exponent)", fit.estimates,
                            len(fit.data), fit.method, fit, notes, doubts=doubts)
