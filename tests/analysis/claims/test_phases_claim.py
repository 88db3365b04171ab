"""Claims that phases come in an order: parsed with care; judged on planted walks, along an axis and in training."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic import Study

from analysis.claims import judge, parse_claims
from analysis.tables import load
from trials.errors import UserError

KNOWN = {"batch_size", "lr", "seed", "step", "layer", "phase", "train_loss"}
ORDER = ["bulk-decay", "bulk+spikes", "bleeding-out", "random-like"]
WALK: dict[str, Any] = {"claim": "It walks.", "phases": "fc1", "over": "batch_size", "expect": {"order": ORDER}}
# Rows of the table layers that have each label.
MATRIX = {"rows": 512, "cols": 64, "hard_rank": 64, "delta_rank": 60, "n_spikes": 3, "mp_softrank": 0.4,
          "mp_distance": 0.01, "alpha": None}
LOOKS: dict[str | None, dict[str, Any]] = {
    "bulk+spikes": MATRIX, "bleeding-out": {**MATRIX, "mp_softrank": 0.9}, "bulk-decay": {**MATRIX, "n_spikes": 20},
    "random-like": {**MATRIX, "n_spikes": 0, "mp_softrank": 1.0}, "rank-collapse": {**MATRIX, "delta_rank": 10},
    None: {**MATRIX, "cols": 10, "hard_rank": 10, "delta_rank": 9}}
BATCHES = [2, 4, 8, 16, 32, 64, 128, 256]
STRAIGHT = [["bulk-decay"] * 3, ["bulk+spikes"] * 3, ["bulk+spikes"] * 3,
            ["bulk+spikes", "bulk+spikes", "bleeding-out"],
            ["bleeding-out"] * 3, ["bleeding-out"] * 3, ["random-like"] * 3, ["random-like"] * 3]


def planted(study: Study, labels: list[list[str | None]]) -> Any:
    """A trial for each label, by batch size; step 0 is random-like."""
    for batch, row in zip(BATCHES, labels, strict=True):
        for seed, phase in enumerate(row):
            rows = study.rows(f"b{batch}s{seed}", {"batch_size": batch, "seed": seed}, layers={"fc1": LOOKS[phase]})
            study.write(rows)
    return load(study.root)


def verdict(tables: Any, **changes: Any) -> Any:
    [found] = judge(parse_claims([{**WALK, **changes}], KNOWN), tables)
    return found


@pytest.mark.parametrize("labels", [["random-like"], ["random-like", "bulk+spikes"], ["random-like"] * 4])
def test_too_few_values_decide_nothing(study: Study, labels: list[str]) -> None:
    for batch, phase in zip(BATCHES, labels, strict=False):
        study.write(study.rows(f"b{batch}", {"batch_size": batch, "seed": 0}, layers={"fc1": LOOKS[phase]}))
    found = verdict(load(study.root))
    assert found.answer == "undecided" and f"at {len(labels)} values of batch_size are too few" in found.because


@pytest.mark.parametrize(("changes", "place", "message"), [
    ({"phases": 1.5}, "phases", "expected the name of a layer, such as fc1, got 1.5"),
    ({"expect": {"rank_correlation": {"above": 0}}}, "expect", "expected a mapping such as {order: [bulk-decay"),
    ({"expect": {"order": ["random-like"]}}, "expect.order", "expected a list of 2 or more different phases"),
    ({"expect": {"order": ["random-like", "random-like"]}}, "expect.order", "2 or more different phases"),
    ({"expect": {"order": ["random-like", "bulk-spikes"]}}, "expect.order", "did you mean 'bulk+spikes'"),
    ({"expect": {"order": ORDER, "visits": ["heavy-tailed"]}}, "expect.visits", "no phase 'heavy-tailed' here"),
    ({"expect": {"order": ORDER, "visit": []}}, "expect.visit", "did you mean 'visits'"),
    ({"expect": {"order": ORDER, "rank_correlation": 1}}, "expect.rank_correlation", "expected {above: a}"),
    ({"over": "batchsize"}, "over", "did you mean 'batch_size'"),
    ({"over": "step", "at": {"step": 10}}, "at", "over step looks at all of training; leave out at"),
    ({"where": {"layer": "fc2"}}, "where.layer", "the layer is what phases names"),
])
def test_bad_claims_are_refused_with_their_place(changes: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_claims([{**WALK, **changes}], KNOWN)
    assert str(caught.value).startswith(f"analysis[0].{place}:") and message in str(caught.value)


def test_a_walk_holds_and_says_where_each_phase_is(study: Study) -> None:
    tables = planted(study, STRAIGHT)
    found = verdict(tables, expect={"order": ORDER, "visits": ORDER})
    assert found.answer == "holds" and found.n == 24 and found.estimates["rank_correlation"].low > 0
    assert "bulk-decay at 2 (3 of 3), bulk+spikes at 4 to 16 (8 of 9)" in found.because
    assert "100% of neighbouring values of batch_size are in the order" in found.because
    assert found.expected["rank_correlation"] == f"above 0 in the order {', '.join(ORDER)}; visits to all"
    assert "each phase to be visited is the commonest at some batch_size" in found.because
    assert verdict(tables, expect={"order": ORDER[::-1]}).answer == "fails"
    unseen = verdict(tables, expect={"order": ["heavy-tailed", *ORDER], "visits": ["heavy-tailed"]})
    assert unseen.answer == "fails" and "no label is heavy-tailed" in unseen.because
    steep = verdict(tables, expect={"order": ORDER, "rank_correlation": {"above": 0.9}})
    assert steep.answer == "undecided"
    assert "no results at the end where layer is fc2" in verdict(tables, phases="fc2").because


def test_training_time(study: Study) -> None:
    """Steps 0 (which ``rows`` gives numbers below 0: no label) and 100 tell two phases; every trial goes one way."""
    for batch in BATCHES:
        rows = study.rows(f"b{batch}", {"batch_size": batch}, layers={"fc1": MATRIX}, steps=(100,))
        early = study.rows(f"b{batch}", {"batch_size": batch}, layers={"fc1": LOOKS["random-like"]}, steps=(1,))
        study.measure(early, ("layers", "steps"))
        study.write(rows)
    found = verdict(load(study.root), over="step", expect={"order": ORDER[::-1]})
    assert found.answer == "holds" and found.n == 16 and "100% of trials never go back" in found.because
    assert ("random-like from 1 on (median of 8 of 8 trials), bulk+spikes from 100 on (median of 8 of 8 trials)"
            in found.because)


def test_what_keeps_a_walk_from_holding(study: Study) -> None:
    back = [*STRAIGHT]
    back[5] = ["bulk-decay"] * 3
    found = verdict(planted(study, back))
    assert found.answer == "undecided" and "all replicates at 4 and 64 are against the order, and at" in found.because


@pytest.mark.parametrize("first", [["bulk-decay", "bulk+spikes", "bulk+spikes"], ["bulk-decay", "bulk+spikes"]])
def test_a_phase_is_visited_where_it_is_the_commonest(first: list[str | None], study: Study) -> None:
    found = verdict(planted(study, [first, *STRAIGHT[1:]]), expect={"order": ORDER, "visits": ["bulk-decay"]})
    assert found.answer == "undecided" and "bulk-decay is not the commonest phase at any batch_size" in found.because


def test_one_phase_everywhere_fails(study: Study) -> None:
    found = verdict(planted(study, [["bulk+spikes"] * 2] * 8))
    assert found.answer == "fails" and "every label is bulk+spikes: no walk" in found.because


def test_labels_outside_of_the_order_are_left_out_and_counted(study: Study) -> None:
    few = [*STRAIGHT[:-1], ["random-like", None, "rank-collapse"]]
    found = verdict(planted(study, few))
    assert found.answer == "holds" and "2 of 24 labels left out: 1 no label, 1 rank-collapse" in found.because
    small = verdict(load(study.root), where={"batch_size": [2, 4]})
    assert small.answer == "undecided" and "2 values of batch_size are too few" in small.because
    many = verdict(load(study.root), expect={"order": ORDER[:3]})
    assert many.answer == "undecided" and "labels left out" in many.because


def test_a_layer_too_small_for_labels_is_undecided_with_the_reason(study: Study) -> None:
    found = verdict(planted(study, [[None]] * 8))
    assert found.answer == "undecided"
    assert "none of 8 labels is in the order; the first reason: 10 eigenvalues: too few" in found.because


def test_trials_that_never_get_there_are_named(study: Study) -> None:
    for batch, row in zip(BATCHES, STRAIGHT, strict=True):
        steps = (1, 100) if batch < 256 else (1, 50)
        study.write(study.rows(f"b{batch}", {"batch_size": batch}, layers={"fc1": LOOKS[row[0]]}, steps=steps))
    found = verdict(load(study.root), at={"step": 100})
    assert "1 trial left out, never there: batch_size 256 (1)" in found.because and found.n == 7
