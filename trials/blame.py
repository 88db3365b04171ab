"""Whether a loss that is not finite is what training did: the status ``diverged`` says so. Where the model, as it is
built, or a batch gives no finite loss by itself, the trial has failed."""

from __future__ import annotations

import torch

from trials.batches import Batches
from trials.checks import UNSOUND
from trials.evaluate import evaluate, finite
from trials.guest import guest
from trials.network import tensors
from trials.setup import Trial, build_module


@torch.no_grad()
def blame(trial: Trial, taken: int) -> str | None:
    """What else than training made the loss of step ``taken`` infinite or no number; None where training did."""
    if taken and trial.data.fresh is None:  # stored data are looked at when they are loaded
        return None
    batch = Batches(trial.data, trial.spec.batch_size, trial.spec.seed)[taken]
    for what, values in (("x", batch.x_B), ("y", batch.target_BC)):
        if not bool(values.isfinite().all()):
            return f"the task's fresh batch of step {taken} has values in {what} that are not finite numbers"
    if taken:
        return None
    module = build_module(trial.spec, trial.data).to(trial.data.x_train.device, trial.data.dtype)
    if not finite(evaluate(trial.network, *tensors(module), trial.data)["train_loss"]):
        return UNSOUND
    # In training mode, before a knob or a step has changed it.
    with guest(trial.spec.seed, "check", trial.device, f"trial: {trial.spec.model['name']}"):
        loss_B = trial.data.loss(module(batch.x_B.clone()), batch.target_BC)
    return None if bool(loss_B.isfinite().all()) else f"{UNSOUND}, in training mode"
