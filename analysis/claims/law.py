"""A claim that a number follows a law over one or two axes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.claims import absent
from analysis.claims.base import CLAIMS, Claim, Verdict, column, columns, setting
from analysis.estimates import LEVEL, Answer
from analysis.laws import forms
from analysis.observe import observations, pooled
from trials.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.laws.law import Law, LawFit
    from analysis.tables import Frames

def a_law(value: Any, place: str, known: Collection[str]) -> str:
    """The name of a law."""
    try:
        return forms.law(str(value)).name
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def laws(value: Any, place: str, known: Collection[str]) -> tuple[str, ...]:
    """A list of laws."""
    if not isinstance(value, list):
        raise UserError(f"{place}: expected a list of laws, got {value!r}")
    return tuple(a_law(name, place, known) for name in value)


def check_rivals(law: str, against: Sequence[str], place: str) -> None:
    """Raise UserError where a law is to be preferred to itself, or to another twice."""
    if law in against:
        raise UserError(f"{place}.against: {law} is the law that is claimed; name others")
    if twice := [name for name in against if list(against).count(name) > 1]:
        raise UserError(f"{place}.against: {twice[0]} is named twice; remove one")


def preferred(fit: LawFit, rivals: Sequence[LawFit], level: float) -> tuple[list[Answer], list[str]]:
    """Whether ``fit`` is 1 / (1 - level) times likelier, 20 at 95%, than the best of its ``rivals`` by AICc (fails if
    that is so much likelier than it), and how much, in words."""
    from analysis.laws.compare import compare

    if not rivals:
        return [], []
    table = compare([fit, *rivals]).set_index("law")["aicc"]
    rival = table.drop(fit.law.name).idxmin()
    ratio = math.exp(min((table[rival] - table[fit.law.name]) / 2, 700.0))
    better = f"{ratio:.3g} times likelier" if ratio >= 1 else f"{1 / max(ratio, 1e-300):.3g} times less likely"
    enough = 1 / (1 - level) * (1 - 1e-9)
    answer: Answer = "holds" if ratio >= enough else "fails" if ratio <= 1 / enough else "undecided"
    return [answer], [f"{fit.law.name} is {better} than {rival}"]


def shared(rows: pd.DataFrame, x: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """The rows and the name of the column whose values share their chance; None where each row has its own."""
    name, by = "configuration", [*x]
    if (rows.groupby("configuration")[by].nunique(dropna=False) <= 1).all(axis=None):
        name = ", ".join(by)
        if len(by) > 1:
            rows = rows.assign(**{name: rows.groupby(by, dropna=False).ngroup()})
    return rows, name if rows[name].nunique() < len(rows) else None


@CLAIMS.register("law")
@dataclass(frozen=True, kw_only=True)
class LawClaim(Claim):
    """``y`` follows ``law`` over ``x``, with the numbers expected, and ``against`` other laws it is preferred.

    Trials at one x share what the law does not say about it: they are one cluster, whatever else varies among them.
    Where x is measured, and differs between the trials of a configuration, these are. Seeds are crossed with settings.
    Undecided where the law does not fit: the number of a law that is not there decides nothing.
    """

    law: str = setting(a_law)
    y: str = setting(column)
    x: tuple[str, ...] = setting(columns)
    against: tuple[str, ...] = setting(laws, default=())

    def numbers(self) -> tuple[str, ...]:
        return forms.law(self.law).parameters

    def check(self, place: str) -> None:
        check_rivals(self.law, self.against, place)
        law = forms.law(self.law)
        if len(self.x) != law.inputs:
            raise UserError(f"{place}.x: expected {law.inputs} column(s) for the law {law.name}, got {len(self.x)}")
        if self.expect or not self.against:
            super().check(place)

    def verdict(self, tables: Frames, level: float = LEVEL) -> Verdict:
        from analysis.laws.adequacy import lack_of_fit
        from analysis.laws.fit import fit_law

        rows = observations(tables, {self.y, *self.x}, self.at, self.where)
        crossed = "seed" if "seed" in rows else None

        def fitted(rows: pd.DataFrame, law: Law) -> LawFit:
            rows, cluster = shared(rows, self.x)
            return fit_law(rows, law, self.x, self.y, cluster=cluster, crossed=crossed, level=level)

        law = forms.law(self.law)
        fit, *rivals = (fitted(rows, each) for each in (law, *(forms.beside(name, law) for name in self.against)))
        fits = lack_of_fit(fit, rows.get("seed"))
        carried = absent.doubts(tables, rows, self.y, absent.extremes(rows[self.y]), self.expect, fit.estimates,
                                lambda rows: fitted(rows, law).estimates)
        answers, notes = preferred(fit, rivals, level)
        notes = [*notes, *fits.notes, *absent.said(tables, rows, self.x[0]), *pooled(rows)]
        about = f"{self.y} {self.at} = {fit.law.formula.partition('= ')[2] or fit.law.formula}, x = {', '.join(self.x)}"
        return self.decided(about, fit.estimates, fit.n, fit.method, fit, notes, answers, tuple(rivals),
                            [*fits.doubts, *carried])
