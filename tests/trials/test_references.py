"""A trial's tensors are wherever and whenever a model reaches for them, or the model is refused."""

from __future__ import annotations

import pytest
import torch
import zoo_references
from state_cases import alone, apart, built, packed, plainly, trial

from trials.divergence import Watch
from trials.errors import UserError
from trials.evaluate import evaluate
from trials.measure import Measure
from trials.observer import Observer
from trials.packs.unfit import Unfit
from trials.rehearsal import rehearse
from trials.setup import load_data, prepare
from trials.spec import TrialSpec

# By the backward pass.
READ = ["computed again", "computed again as of old", "accumulated", "hook that reads", "feedback"]
pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}:UserWarning") for words in (
    "None of the inputs have requires_grad=True", "Sparse CSR tensor support is in beta state")]
HELD = ["list", "deque in a dictionary", "attribute", "closure", "all of them", "tied"]


def study(kind: str, seed: int = 0, **changes: object) -> TrialSpec:
    decay = 0.0 if kind == "sparse" else 0.1  # which torch has for dense gradients alone
    sgd = {"name": "sgd", "lr": 0.02 * (1 + seed), "momentum": 0.5, "weight_decay": decay}
    return trial(function="net", seed=seed, **{
        "model": {"name": f"{zoo_references.__file__}:net", "kind": kind}, "optimizer": sgd, **changes})


@pytest.mark.parametrize("kind", [*HELD, "recurrent", "sparse", *READ, "counted backward", "teacher", "merged", "class",
                                  "gradient kept", "swapped", "experts", "asks for parameters",
                                  "sparse constant", "on meta", "named again", "named once"])
def test_a_trial_alone_is_a_plain_loop(kind: str) -> None:
    spec = study(kind)
    data = load_data(spec)
    module = built(spec, zoo_references.net, kind)
    sgd = torch.optim.SGD(module.parameters(), **{key: spec.optimizer[key] for key in (
        "lr", "momentum", "weight_decay")})
    state = {name: value.clone() for name, value in plainly(spec, module, sgd, 30).state_dict().items()}
    module.eval()
    with torch.no_grad():
        loss = float(data.loss(module(data.x_train), data.train_targets).mean())
    found = alone(spec, 30)
    for name, value in state.items():
        if name in {**found.params, **found.buffers}:  # what is tied is there once
            torch.testing.assert_close({**found.params, **found.buffers}[name], value, rtol=1e-9, atol=1e-12)
    ours = evaluate(found.trial.network, found.params, found.buffers, data)["train_loss"]
    assert ours == pytest.approx(loss, rel=1e-9)


def test_a_part_that_a_step_does_not_use_is_left_alone_by_adam_too() -> None:
    spec = study("experts", optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.1})
    module = built(spec, zoo_references.net, "experts")
    plainly(spec, module, torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1), 30)
    found = alone(spec, 30)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(found.params[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", HELD)
def test_lanes_are_trials_alone(kind: str) -> None:
    specs = [study(kind, seed) for seed in range(2)]
    lanes = packed(specs, 20)
    assert all(apart(lanes, lane, alone(spec, 20)) < 1e-9 for lane, spec in enumerate(specs))


def test_what_lies_beside_a_weight_in_memory_is_no_view_of_it() -> None:
    assert prepare(study("beside it in memory", precision="float32"), "cpu").initial


def test_the_modules_own_are_back_afterwards() -> None:
    network = prepare(study("list"), "cpu").network
    module: zoo_references.Net = network.module  # type: ignore[assignment]
    assert module.held[0] is module.first.weight


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("kind", "said"), [
    ("tuple", "first.(weight|bias) is held by a tuple too"),
    ("partial", "first.weight is held by a tuple too"),
    ("view", "held lies in the memory of first.weight"),
    ("array", "held lies in the memory of first.weight"),
    ("made before", "forward uses what was made of first.weight when the model was built"),
    ("made at first", "its first forward pass makes held.weight"),
    ("replaced", "forward puts another tensor in the place of parameter first.weight"),
    ("grad", "forward reads .grad of first.weight"),
    ("script", "gives a module of torch.jit")])
def test_what_cannot_be_followed_is_refused(kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepare(study(kind, precision="float32"), "cpu")


@pytest.mark.parametrize("kind", READ)
def test_what_the_backward_pass_reads_is_not_packed(kind: str) -> None:
    with pytest.raises(Unfit, match="the model's backward pass reads its weights"):
        packed([study(kind), study(kind, 1)], 3)


def test_a_gradient_that_is_kept_is_in_no_checkpoint() -> None:
    found = alone(study("gradient kept"), 5)
    assert found.checkpoint(Observer(found.trial, Measure("ends", "none", "none", "none")), Watch(), 0.0) is None


def test_a_merged_weight_is_the_one_in_use() -> None:
    found = alone(study("merged"), 20)
    observer = Observer(found.trial, Measure())
    here = {**found.params, **found.buffers}
    merged = here["first.weight"] + here["first.b"] @ here["first.a"]
    assert (merged - here["first.weight"]).norm() > 0.1
    for _ in range(2):  # which leaves nothing behind
        torch.testing.assert_close(observer.weights(found.params, found.buffers)["first.weight"], merged)


def test_what_is_computed_again_is_no_function_of_parameters_alone() -> None:
    rehearse(study("computed again"), Measure("ends", "ends", "ends", "none"))
    with pytest.raises(UserError, match=r"measure.curvature: the model cannot be measured like this: its backward"):
        rehearse(study("computed again"), Measure("ends", "none", "none", "none", curvature="ends"))


def test_a_trial_goes_on_from_alone_in_a_pack_with_what_it_never_uses() -> None:
    specs = [study("unused", seed) for seed in range(2)]
    found = alone(specs[0], 5)
    assert "skipped" in found.state
    saved = found.checkpoint(Observer(found.trial, Measure("ends", "none", "none", "none")), Watch(), 0.0)
    lanes = packed(specs, 0)
    assert saved is not None
    lanes.resume(0, saved)
    lanes.step()
    found.take()
    assert apart(lanes, 0, found) < 1e-9
