"""A claim that phases of training come in an order."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from analysis.claims import absent
from analysis.claims.base import CLAIMS, Claim, Verdict, column, region, setting
from analysis.estimates import LEVEL, Answer, Region
from analysis.observe import observations, phases_in_training
from analysis.phase_names import PHASES
from trials.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from analysis.laws.walk import Walk
    from analysis.tables import Frames

LEFT_OUT = 0.2  # of the labels, at most: with more of them outside of the order there is no saying that it holds


@dataclass(frozen=True)
class Order(Region):
    """Where the rank correlation lies if ``phases`` come in this order; each of ``visits`` is among ``Walk.seen``."""

    phases: tuple[str, ...] = ()
    visits: tuple[str, ...] = ()

    def __str__(self) -> str:
        visits = "all" if set(self.visits) == set(self.phases) else ", ".join(self.visits)
        order = f"{super().__str__()} in the order {', '.join(self.phases)}"
        return f"{order}; visits to {visits}" if visits else order


def layer(value: Any, place: str, known: Collection[str]) -> str:
    """The name of a layer, which may be a whole number."""
    value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: expected the name of a layer, such as fc1, got {value!r}")
    return value


def _expect(value: Any, place: str, known: Collection[str]) -> dict[str, Region]:
    if not isinstance(value, Mapping) or "order" not in value:
        raise UserError(f"{place}: expected a mapping such as {{order: [bulk-decay, bulk+spikes, random-like]}}, "
                        f"got {value!r}")
    for key in value:
        if key not in (allowed := ("order", "visits", "rank_correlation")):
            raise UserError(f"{place}.{key}: no such key; {did_you_mean(key, allowed)}")
    order = _names(value["order"], f"{place}.order", PHASES, 2)
    visits = _names(value["visits"], f"{place}.visits", order, 1) if "visits" in value else ()
    ends = region(value.get("rank_correlation", {"above": 0}), f"{place}.rank_correlation")
    return {"rank_correlation": Order(ends.low, ends.high, order, visits)}


def _names(value: Any, place: str, known: tuple[str, ...], fewest: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < fewest or len(set(map(str, value))) < len(value):
        raise UserError(f"{place}: expected a list of {fewest} or more different phases, got {value!r}")
    for name in value:
        if name not in known:
            raise UserError(f"{place}: no phase {name!r} here; {did_you_mean(name, known)}")
    return tuple(value)


@CLAIMS.register("phases")
@dataclass(frozen=True, kw_only=True)
class PhasesClaim(Claim):
    """The phases of the layer ``phases`` come in an order as ``over`` grows: an axis, or ``step`` for training time.

    It fails where all labels are one phase, or none is a phase to be visited; it is undecided where more than a fifth
    of the labels are outside of the order, or where replicates agree on a step back.
    """

    gives: ClassVar[tuple[str, ...]] = ("rank_correlation",)
    phases: str = setting(layer)
    over: str = setting(column)
    expect: dict[str, Region] = setting(_expect)

    @property
    def reads(self) -> frozenset[str]:
        return super().reads | {"phase"}

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.phases,)

    def check(self, place: str) -> None:
        super().check(place)
        if self.over == "step" and not self.at.is_end:
            raise UserError(f"{place}.at: over step looks at all of training; leave out at")
        if "layer" in self.where:
            raise UserError(f"{place}.where.layer: the layer is what phases names; leave it out here")

    @property
    def order(self) -> Order:
        """What is expected."""
        order = self.expect["rank_correlation"]
        assert isinstance(order, Order)
        return order

    def verdict(self, tables: Frames, level: float = LEVEL) -> Verdict:
        from analysis.laws.walk import walk, walk_in_training

        doubts: list[str] = []
        if self.over == "step":
            trials = observations(tables, {"phase"}, self.at, {**self.where, "layer": (self.phases,)})
            rows = phases_in_training(tables, self.phases).merge(trials[["trial_id", "configuration"]], on="trial_id")
            fit, moment = walk_in_training(rows, self.order.phases, level=level), "in training"
        else:
            rows = trials = observations(tables, {"phase", "because", self.over}, self.at,
                                         {**self.where, "layer": (self.phases,)})
            fit, moment = walk(rows, self.over, self.order.phases, level=level), str(self.at)
            ends = {phase: phase for phase in (self.order.phases[0], self.order.phases[-1])}
            doubts = absent.doubts(tables, rows, "phase", ends, self.expect, fit.estimates,
                                   lambda rows: walk(rows, self.over, self.order.phases, level=level).estimates)
        answers, notes = self._others(fit, rows)
        notes = [f"{self.over}: {fit}", *notes, *absent.said(tables, trials, self.over)]
        return self.decided(f"phase of {self.phases} {moment} over {self.over}", fit.estimates, fit.n, fit.method, fit,
                            notes, answers, doubts=doubts)

    def _others(self, fit: Walk, rows: pd.DataFrame) -> tuple[list[Answer], list[str]]:
        """What decides beside the rank correlation, and what there is to say."""
        answers: list[Answer] = []
        notes = []
        moved = not math.isnan(fit.estimates["rank_correlation"].value)
        if not moved:
            answers.append("fails")
            notes.append(f"every label is {fit.data['phase'].iloc[0]}: no walk")
        for phase in self.order.visits:
            if phase not in fit.seen:
                anywhere = int((rows["phase"] == phase).sum())
                answers.append("undecided" if anywhere else "fails")
                short = (f"fewer than two trials reach {phase}" if self.over == "step" else
                         f"{phase} is not the commonest phase at any {self.over}")
                notes.append(short if anywhere else f"no label is {phase}")
        if self.order.visits and set(self.order.visits) <= set(fit.seen):
            how = "is reached by two trials" if self.over == "step" else f"is the commonest at some {self.over}"
            notes.append(f"each phase to be visited {how}")
        if fit.backward:
            answers.append("undecided")
            low, high = fit.backward[0]
            notes.append(f"all replicates at {low:g} and {high:g} are against the order"
                         + (f", and at {len(fit.backward) - 1} more pairs" if len(fit.backward) > 1 else ""))
        out = sum(fit.left_out.values())
        if out:
            each = ", ".join(f"{count} {name}" for name, count in fit.left_out.items())
            notes.append(f"{out} of {len(rows)} labels left out: {each}")
        if out > LEFT_OUT * len(rows):
            answers.append("undecided")
            notes.append("these are more than a fifth, so that nothing is decided")
        what = ("of trials never go back" if self.over == "step" else
                f"of neighbouring values of {self.over} are in the order")
        return answers, [*notes, *([f"{fit.kept:.0%} {what}"] if moved else [])]
