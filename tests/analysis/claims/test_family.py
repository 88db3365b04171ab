"""Holm's step-down over the claims of a study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import norm
from synthetic import Study

from analysis.claims import judge, parse_claims
from analysis.claims.base import Claim, Verdict
from analysis.claims.family import together
from analysis.estimates import LEVEL, Estimate, Region
from analysis.tables import load
from trials.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Normal(Claim):
    """The mean of a normal number of sd 1 that came out as ``z`` is above 0."""

    gives: ClassVar[tuple[str, ...]] = ("mean",)
    z: float

    def verdict(self, tables: Any, level: float = LEVEL) -> Verdict:
        if math.isnan(self.z):
            raise UserError("no number")
        half = norm.ppf((1 + level) / 2)
        return self.decided("", {"mean": Estimate(self.z, self.z - half, self.z + half, level)}, 1, "", None)


def claims(*z: float) -> list[Claim]:
    return [Normal(claim="c", expect={"mean": Region(low=0.0)}, z=each) for each in z]


def holm(p: np.ndarray[Any, np.dtype[np.float64]]) -> list[bool]:
    """The textbook's procedure."""
    found = np.zeros(len(p), bool)
    for rank, place in enumerate(np.argsort(p)):
        if p[place] > 0.05 / (len(p) - rank):
            break
        found[place] = True
    return list(found)


@pytest.mark.parametrize("seed", range(10))
def test_it_is_holms_procedure_on_two_sided_p_values(seed: int) -> None:
    z = np.random.default_rng(seed).normal(1.5, 1.5, 8)
    verdicts = judge(claims(*z), None)  # type: ignore[arg-type]
    stands = holm(2 * norm.sf(np.abs(z)))
    for verdict, each, stand in zip(verdicts, z, stands, strict=True):
        alone = "undecided" if abs(each) < norm.ppf(0.975) else "holds" if each > 0 else "fails"
        assert verdict.answer == alone and verdict.family is not None and verdict.family.claims == 8
        assert verdict.family.verdict == (alone if stand else "undecided")
        assert verdict.as_json()["family"]["verdict"] == verdict.family.verdict


def test_of_claims_of_nothing_any_is_decided_in_at_most_5_percent() -> None:
    rng, alone, family = np.random.default_rng(0), 0, 0
    for _ in range(400):
        verdicts = judge(claims(*rng.normal(size=8)), None)  # type: ignore[arg-type]
        alone += any(each.answer != "undecided" for each in verdicts)
        family += any(each.family is not None and each.family.verdict != "undecided" for each in verdicts)
    assert alone > 100 and family <= 35  # more has a chance below 1e-3


def test_what_stands_in_words() -> None:
    verdicts = judge(claims(4.0, 2.2, 0.0, math.nan), None)  # type: ignore[arg-type]
    assert [each.answer for each in verdicts] == ["holds", "holds", "undecided", "undecided"]
    assert str(verdicts[0].family) == "stands among 4 claims (Holm: by intervals at 98.75%)"
    assert str(verdicts[1].family) == "undecided among 4 claims (Holm: by intervals at 98.33%)"
    assert together(verdicts) == ("1 of 2 decided verdicts stand among 4 claims (Holm: the chance that any is wrong is "
                                  "at most 5%); decided only by itself: claim 2")
    assert verdicts[0].standing == str(verdicts[0].family) and not verdicts[2].standing
    none = dict.fromkeys(verdicts[0].estimates, Estimate(math.nan, math.nan, math.nan))
    assert "rests on no interval" in replace(verdicts[0], estimates=none).standing
    [single] = judge(claims(2.2), None)  # type: ignore[arg-type]
    assert single.family is None and "family" not in single.as_json() and not together([single])
    assert not together(judge(claims(0.0, 0.0), None))  # type: ignore[arg-type]


def test_every_kind_of_claim_is_judged_at_other_levels(study: Study) -> None:
    rng = np.random.default_rng(0)
    for batch_size in 2 ** np.arange(9):
        for seed in range(2):
            study.add(f"{batch_size}-{seed}", {"batch_size": int(batch_size), "seed": seed},
                      final={"test_loss": batch_size**0.5 * np.exp(0.1 * rng.normal()), "train_loss": 0.1})
    common = {"claim": "c", "expect": {"exponent": {"above": 0}}}
    found = parse_claims([{**common, "law": "power", "y": "test_loss", "x": "batch_size", "against": ["constant"]},
                          {"claim": "c", "trend": "test_loss", "over": "batch_size",
                           "expect": {"rank_correlation": {"above": 0}}}], {"test_loss", "batch_size"})
    tables = load(study.root)
    for claim in found:
        narrow, wide = (next(iter(claim.verdict(tables, level).estimates.values())) for level in (0.5, 0.999))
        assert wide.level == 0.999 and wide.low < narrow.low and wide.high >= narrow.high
    assert [each.family.verdict for each in judge(found, tables) if each.family] == ["holds", "holds"]
