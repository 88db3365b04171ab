"""A parameter with requires_grad=False stays as it was built, and is measured as the weight that it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from state_cases import alone, apart, built, packed, plainly, trial

from trials.errors import UserError
from trials.measure import Measure
from trials.setup import prepare
from trials.trainer import train

FROZEN = ("1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias")


@pytest.mark.parametrize("optimizer", [
    {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}, {"name": "sgd", "weight_decay": 0.1, "decay": "decoupled"},
    {"name": "sgd", "weight_decay": 0.1, "decay": "independent"}, {"name": "adam", "weight_decay": 0.1},
    {"name": "muon", "weight_decay": 0.1}])
def test_nothing_reaches_a_frozen_layer(optimizer: dict[str, Any]) -> None:
    knobs = {"init_scale": {"gain": 3.0}, "orthogonal": {"strength": 0.1}, "sam": {"rho": 0.1},
             "gradient_clipping": {"norm": 0.1}}
    specs = [trial(function="frozen", seed=seed, optimizer={**optimizer, "lr": 0.02 + seed / 100}, knobs=knobs)
             for seed in range(3)]
    lanes = packed(specs, 30)
    for lane in (0, 2):
        found = alone(specs[lane], 30)
        assert apart(lanes, lane, found) < 1e-9
        module = built(specs[lane], zoo.frozen)
        for name in FROZEN:
            own = module.get_parameter(name).detach()
            assert torch.equal(found.buffers[name], own) and torch.equal(lanes.buffers[name][lane], own)
        assert set(found.params) == {"3.weight", "3.bias"}
        assert not torch.equal(found.params["3.weight"], found.trial.initial["3.weight"])


@pytest.mark.parametrize(("decay", "torchs"), [("coupled", torch.optim.Adam), ("decoupled", torch.optim.AdamW)])
def test_a_linear_probe_is_that_of_a_plain_loop(decay: str, torchs: Any) -> None:
    """Whose optimizer is given the trainable parameters alone."""
    spec = trial(function="frozen", optimizer={"name": "adam", "lr": 0.01, "weight_decay": 0.1, "decay": decay})
    module = built(spec, zoo.frozen)
    trainable = [value for value in module.parameters() if value.requires_grad]
    plain = plainly(spec, module, torchs(trainable, lr=0.01, weight_decay=0.1), 40)
    found = alone(spec, 40)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close({**found.params, **found.buffers}[name], value, rtol=1e-9, atol=1e-12)


def test_what_is_measured() -> None:
    measure = Measure("ends", "ends", "ends", "ends")
    spec = trial(function="frozen", steps=5)
    rows = train(spec, measure)
    layers = {row["layer"]: row for row in rows.layers if row["step"] == 5}
    assert {"1.0", "3"} <= set(layers)  # a frozen weight is a weight
    trainable = [value for value in built(spec, zoo.frozen).parameters() if value.requires_grad]
    assert rows.trial["parameters"] == sum(value.numel() for value in trainable)
    first = torch.cat([value.detach().reshape(-1) for value in trainable])
    assert rows.steps[0]["weight_norm"] == pytest.approx(float(first.norm()))


def test_a_model_that_is_frozen_as_a_whole_is_refused() -> None:
    spec = trial(function="frozen", model={"name": f"{zoo.__file__}:frozen", "everything": True})
    with pytest.raises(UserError, match="has no parameter to train"):
        prepare(spec, "cpu")
