"""Gradients go through what a model keeps from one forward pass to the next, as in a plain loop, or it is refused."""

from __future__ import annotations

import pytest
import torch
import zoo_graphs
from state_cases import alone, built, packed, plainly, trial

from trials.divergence import Watch
from trials.errors import UserError
from trials.measure import Measure
from trials.observer import Observer
from trials.packs.unfit import Unfit
from trials.rehearsal import rehearse
from trials.spec import TrialSpec
from trials.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")


def study(kind: str, seed: int = 0) -> TrialSpec:
    return trial(function="net", seed=seed, model={"name": f"{zoo_graphs.__file__}:net", "kind": kind})


@pytest.mark.parametrize("kind", ["delayed", "looked at", "pruned and normed"])
def test_a_trial_alone_is_a_plain_loop(kind: str) -> None:
    spec = study(kind)
    module, found = built(spec, zoo_graphs.net, kind), alone(spec, 30)
    sgd = torch.optim.SGD(module.parameters(), lr=spec.optimizer["lr"], momentum=0.5)
    for name, value in plainly(spec, module, sgd, 30).state_dict().items():
        torch.testing.assert_close({**found.params, **found.buffers}[name], value, rtol=1e-9, atol=1e-12)


def test_evaluations_leave_what_is_kept() -> None:
    often, seldom = (train(study("delayed"), Measure(when, "none", "none", "none")).trial["train_loss"]
                     for when in ("log", "ends"))
    assert often == seldom
    with pytest.raises(Unfit):
        packed([study("delayed"), study("delayed", 1)], 3)


@pytest.mark.parametrize(("kind", "saved"), [("delayed", False), ("looked at", True), ("plain", True)])
def test_a_graph_that_gradients_take_is_in_no_checkpoint(kind: str, saved: bool) -> None:
    found = alone(study(kind), 5)
    drawn = torch.get_rng_state()
    checkpoint = found.checkpoint(Observer(found.trial, Measure("ends", "none", "none", "none")), Watch(), 0.0)
    assert (checkpoint is not None) == saved and torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize(("kind", "said"), [
    ("pruned under a norm", "first.weight is made of first.weight_v before the hook that makes first.weight_v has run"),
    ("held still", "forward changes requires_grad of first.bias"),
    ("used twice", "Trying to backward through the graph a second time")])
def test_what_a_plain_loop_refuses_or_gets_wrong_is_refused_before_a_sweep(kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rehearse(study(kind))
