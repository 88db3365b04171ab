"""Phases in order along an axis and in training: by hand, on labels drawn at random, on a planted walk."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.laws.walk import walk, walk_in_training
from trials.errors import UserError

ORDER = ("bulk-decay", "bulk+spikes", "bleeding-out", "random-like")
X = 2.0 ** np.arange(10)
TRUE = [0, 1, 1, 1, 1, 2, 2, 2, 3, 3]


def labels(places, x=X):
    """A row for each of ``places``: n values of x, some replicates each; None has no label."""
    return pd.DataFrame({"x": np.repeat(x, [len(each) for each in places]),
                         "phase": [None if place is None else ORDER[place] for each in places for place in each]})


def random_labels(rng, replicates, shares=(0.4, 0.3, 0.2, 0.1)):
    return rng.choice(4, size=(10, replicates), p=shares)


def noisy_walk(rng, replicates, noise):
    """The true places, each a place further, either way, with some probability."""
    places = np.repeat(np.array(TRUE)[:, None], replicates, axis=1)
    moved = np.clip(places + rng.choice([-1, 1], size=places.shape), 0, 3)
    return np.where(rng.random(places.shape) < noise, moved, places)


def in_training(rng, trials, steps=20, random=False):
    """A row a step of each trial: three jumps at random times, or labels drawn at random."""
    return pd.DataFrame([
        {"trial_id": f"t{trial}", "configuration": trial, "step": step, "phase": ORDER[::-1][place]}
        for trial in range(trials)
        for step, place in enumerate(rng.choice(4, size=steps) if random
                                     else np.searchsorted(np.sort(rng.choice(steps, 3)), np.arange(steps)))])


def test_a_walk_by_hand():
    found = walk(labels([[place] * 2 for place in TRUE]), "x", ORDER)
    estimate = found.estimates["rank_correlation"]
    assert estimate.value == pytest.approx(pd.Series(X).corr(pd.Series(TRUE), method="spearman")) and estimate.low > 0.7
    assert str(found) == ("bulk-decay at 1 (2 of 2), bulk+spikes at 2 to 16 (8 of 8), "
                          "bleeding-out at 32 to 128 (6 of 6), random-like at 256 to 512 (4 of 4)")
    assert found.seen == ORDER and found.kept == 1 and not found.backward and not found.left_out and found.n == 20


def test_votes_steps_back_and_what_is_left_out():
    places = [[0, 0, 1], [1, 1, 1], [2, 2, 2], [1, 1, 1], [2, 2, None], [2, None, None]]
    rows = pd.concat([labels(places, X[:6]), pd.DataFrame({"x": [32.0], "phase": ["rank-collapse"]})])
    found = walk(rows, "x", ORDER)
    assert found.data[["phase", "agree", "n"]].values.tolist()[0] == ["bulk-decay", 2, 3]
    assert found.data["n"].tolist() == [3, 3, 3, 3, 2, 1] and found.n == 15
    assert found.left_out == {"no label": 3, "rank-collapse": 1}
    assert found.backward == ((4.0, 8.0),) and found.kept == pytest.approx(4 / 5)


def test_the_other_way_round_is_below_0():
    found = walk(labels([[place] for place in TRUE[::-1]]), "x", ORDER).estimates["rank_correlation"]
    assert found.high < -0.7


def test_one_phase_everywhere_is_no_number():
    found = walk(labels([[1, 1]] * 10), "x", ORDER)
    assert math.isnan(found.estimates["rank_correlation"].value) and found.seen == ("bulk+spikes",)


@pytest.mark.parametrize("replicates", [2, 5])
def test_labels_drawn_at_random_are_no_walk(replicates):
    rng = np.random.default_rng(replicates)
    found = [walk(labels(random_labels(rng, replicates)), "x", ORDER).estimates["rank_correlation"]
             for _ in range(60)]
    assert sum(each.low > 0 or each.high < 0 for each in found) <= 6  # 5% and two deviations


@pytest.mark.parametrize("replicates", [2, 5])
def test_a_true_walk_is_found_under_noise(replicates):
    rng = np.random.default_rng(replicates)
    found = [walk(labels(noisy_walk(rng, replicates, 0.2)), "x", ORDER) for _ in range(30)]
    assert np.mean([each.estimates["rank_correlation"].low > 0 and not each.backward for each in found]) >= 0.8


def test_in_training_by_hand():
    rows = pd.DataFrame([{"trial_id": f"t{trial}", "configuration": trial // 2, "step": step, "phase": phase}
                         for trial in range(12)
                         for step, phase in ((0, "random-like"), (1, "random-like"), (10, "bleeding-out"),
                                             (100, "bulk+spikes" if trial else "random-like"))])
    found = walk_in_training(rows, ORDER[::-1])
    forth, back = (pd.Series(range(4)).corr(pd.Series(places), method="spearman")
                   for places in ([0, 0, 1, 2], [0, 0, 1, 0]))
    estimate = found.estimates["rank_correlation"]
    assert estimate.value == pytest.approx((11 * forth + back) / 12) and 0.5 < estimate.low < estimate.high <= 1
    assert found.kept == pytest.approx(11 / 12) and "over 6 configurations" in found.method
    alone = walk_in_training(rows.assign(configuration=0), ORDER[::-1])
    assert "over 12 trials" in alone.method


def test_in_training_random_labels_are_no_walk_and_jumps_are():
    rng = np.random.default_rng(0)
    chance = [walk_in_training(in_training(rng, 6, random=True), ORDER[::-1]).estimates["rank_correlation"]
              for _ in range(40)]
    assert sum(each.low > 0 or each.high < 0 for each in chance) <= 5
    found = [walk_in_training(in_training(rng, 6), ORDER[::-1]).estimates["rank_correlation"] for _ in range(10)]
    assert all(each.low > 0 for each in found)


@pytest.mark.parametrize(("places", "message"), [
    ([[1], [2], [3], [0]], "4 values of x are too few"),
    ([[None]] * 10, "none of 10 labels is in the order; there are none")])
def test_what_cannot_be_said(places, message):
    with pytest.raises(UserError, match=message):
        walk(labels(places, X[:len(places)]), "x", ORDER)
    with pytest.raises(UserError, match=r"5 configurations are too few .*; take 6 at least"):
        walk_in_training(in_training(np.random.default_rng(0), 5), ORDER)
