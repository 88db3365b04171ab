"""Verdicts on studies some of whose trials never get to the moment at which a claim looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from synthetic import Study

from analysis.claims import Verdict, judge, parse_claims
from analysis.tables import load

KNOWN = {"batch_size", "seed", "stable_rank", "layer"}
BATCHES = [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
TREND = {"claim": "It rises.", "trend": "stable_rank", "over": "batch_size",
         "expect": {"rank_correlation": {"above": 0}}}
POWER = {"claim": "It grows.", "law": "power", "y": "stable_rank", "x": "batch_size",
         "expect": {"exponent": {"above": 0.1}}}


def late(study: Study, missing: list[int], seeds: int = 3, exponent: float = 0.5) -> Study:
    """Stable ranks that grow with the batch; trials of ``missing`` batches stop before step 100."""
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        for seed in range(seeds):
            rank = 2 * batch**exponent * np.exp(0.02 * rng.normal())
            study.write(study.rows(f"b{batch}s{seed}", {"batch_size": batch, "seed": seed},
                                   layers={"fc1": {"rows": 64, "cols": 32, "stable_rank": rank}},
                                   steps=(1, 50 if batch in missing else 100)))
    return study


def verdict(study: Study, claim: dict[str, Any]) -> Verdict:
    [found] = judge(parse_claims([{**claim, "at": {"step": 100}}], KNOWN), load(study.root))
    return found


@pytest.mark.parametrize("claim", [TREND, POWER])
def test_a_verdict_does_not_rest_on_trials_that_are_absent(study: Study, claim: dict[str, Any]) -> None:
    """With the three largest batches at the least loss seen nothing is left of either."""
    found = verdict(late(study, [512, 1024, 2048]), claim)
    assert found.answer == "undecided"
    assert "9 trials left out, never there: batch_size 512 (3), 1024 (3), 2048 (3)" in found.because
    assert "9 trials that were never there could carry it: " in found.because
    assert "if theirs were the least seen" in found.because


@pytest.mark.parametrize("claim", [TREND, POWER])
def test_absent_trials_that_could_change_nothing_are_only_said(study: Study, claim: dict[str, Any]) -> None:
    found = verdict(late(study, [64], exponent=1.0), claim)
    assert found.answer == "holds" and "3 trials left out, never there: batch_size 64 (3)" in found.because
    assert "carry" not in found.because


def test_nothing_is_said_where_all_are_there(study: Study) -> None:
    assert "left out" not in verdict(late(study, []), TREND).because


def test_settings_that_are_lacking_at_some_x_tilt_no_trend(make_study: Callable[..., Study]) -> None:
    """Stable ranks that rise with the batch and fall with the rate; the highest rates diverge at small batches, whose
    means are the higher for it."""
    study = make_study(("batch_size", "lr", "seed"))
    for i, batch in enumerate(BATCHES):
        for j, lr in enumerate((0.01, 0.1, 1.0)):
            rank = 20 + 0.5 * i - 8.0 * j
            gone = j == 2 and i < 5
            study.write(study.rows(f"b{i}r{j}", {"batch_size": batch, "lr": lr}, steps=(1, 100),
                                   status="diverged" if gone else "completed",
                                   layers={"fc1": {"rows": 64, "cols": 32, "stable_rank": rank}}))
    found = verdict(study, TREND)
    assert found.answer == "holds" and found.estimates["rank_correlation"].value == pytest.approx(1.0)
    assert "5 trials left out, diverged: batch_size 4 (1), 8 (1), 16 (1), 32 (1), 64 (1)" in found.because


@pytest.mark.parametrize(("where", "said"), [
    ({"batch_size": [*BATCHES[:8], 4096]}, "no trial here has batch_size 4096, which it is about"),
    ({"seed": [0, 1, 7, 9]}, "no trial here has seed 7 or 9, which it is about"),
    ({"layer": ["fc1", "fc2"]}, "no trial here has layer fc2, which it is about"),
    ({"batch_size": BATCHES[:8], "layer": "fc1", "status": ["completed", "stopped"]}, "")])
def test_a_claim_about_values_that_no_trial_has_is_undecided(study: Study, where: dict[str, Any], said: str) -> None:
    """Overrides may have taken them out of the design; what the others show is said all the same."""
    found = judge(parse_claims([{**TREND, "where": where}], KNOWN | {"status"}), load(late(study, []).root))[0]
    assert found.answer == ("undecided" if said else "holds") and found.because.startswith(said or "rank_correlation")
    assert found.estimates["rank_correlation"].value > 0.9 and found.fit is not None
