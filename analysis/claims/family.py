"""Verdicts on claims, each by itself and all of them together.

Of eight claims of nothing one comes out in every seventh study: an interval at 95% is a promise for one claim. Together
they are judged by Holm's step-down (Holm 1979), under which the chance that any decided verdict is wrong is at most 5%,
however the claims depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.claims import absent
from analysis.claims.base import Claim, Family, Verdict
from analysis.estimates import LEVEL, Estimate
from trials.errors import UserError

if TYPE_CHECKING:
    from analysis.tables import Frames


def judge(claims: Sequence[Claim], tables: Frames) -> list[Verdict]:
    """A verdict on each claim, in order, with its ``family`` where there are several; one that cannot be fitted is
    undecided, with the reason.

    In the family a verdict stands if it is the same by intervals at 1 - 5%/m with m claims; with those that stand left
    out, the others are judged at 1 - 5%/(m - theirs), and so on while more of them stand. All claims count, whatever
    came out of them.
    """
    verdicts = [_alone(claim, tables, LEVEL) for claim in claims]
    if len(claims) < 2:
        return verdicts
    stands: dict[int, float] = {}
    while True:
        level = 1 - (1 - LEVEL) / max(len(claims) - len(stands), 1)
        new = [place for place, alone in enumerate(verdicts) if alone.answer != "undecided" and place not in stands
               and (level == LEVEL or _alone(claims[place], tables, level).answer == alone.answer)]
        if not new:
            break
        stands |= dict.fromkeys(new, level)
    return [replace(verdict, family=Family(len(claims), stands.get(place, level),
                                           verdict.answer if place in stands else "undecided"))
            for place, verdict in enumerate(verdicts)]


def together(verdicts: Sequence[Verdict]) -> str:
    """What stands of several verdicts together, in words; empty where none is decided, or there is one claim."""
    decided = {place: each.family for place, each in enumerate(verdicts, 1)
               if each.family and each.answer != "undecided"}
    if not decided:
        return ""
    alone = [str(place) for place, family in decided.items() if family.verdict == "undecided"]
    rest = f"; decided only by itself: claim{'s' * (len(alone) > 1)} {', '.join(alone)}" if alone else ""
    return (f"{len(decided) - len(alone)} of {len(decided)} decided verdicts stand among {len(verdicts)} claims (Holm: "
            f"the chance that any is wrong is at most {1 - LEVEL:.0%}){rest}")


def _alone(claim: Claim, tables: Frames, level: float) -> Verdict:
    try:
        if claim.hopeless:
            raise UserError(claim.hopeless)
        verdict = claim.verdict(tables, level)
        if lacking := absent.untried(tables, claim.where):  # what it says of the others is no answer
            verdict = replace(verdict, answer="undecided", because="; ".join([*lacking, verdict.because]))
        return verdict
    except (UserError, np.linalg.LinAlgError) as error:  # the second where an outcome follows from an axis, say
        return claim.decided("", {name: Estimate(math.nan, math.nan, math.nan) for name in claim.expect}, 0, "", None,
                             [f"not fitted: {error}"], ["undecided"])
