"""Claims of a study's ``analysis:`` block, and the verdicts that its results give on them.

A study is parsed wherever it is named, so these modules import what fits only when a claim is judged.
"""

from __future__ import annotations

from analysis.claims.base import Claim, Verdict, parse_claims
from analysis.claims.family import judge

__all__ = ["Claim", "Verdict", "judge", "parse_claims"]
