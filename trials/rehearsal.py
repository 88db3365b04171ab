"""A rehearsal: what a worker will do is done once by the driver, so that what cannot work is said before a sweep
begins, in one line and with nothing written."""

from __future__ import annotations

from dataclasses import replace

import torch

from trials import usercode
from trials.blame import blame
from trials.errors import UserError, describe
from trials.evaluate import finite
from trials.guest import guest
from trials.measure import GROUPS, Measure
from trials.measurements import measure as take
from trials.measurements.base import Snapshot
from trials.measurements.ggn import GaussNewton
from trials.measurements.gradient_noise import gradients
from trials.measurements.hessian import hessian
from trials.measurements.objective import objective
from trials.memory import Memory
from trials.observer import Observer
from trials.setup import build_module, load_data, prepare
from trials.spec import TrialSpec
from trials.trainer import Alone

FEW = 8  # samples that are measured


def rehearse(spec: TrialSpec, measure: Measure | None = None) -> None:
    """Build everything the trial needs, evaluate it, take two steps, and let a user's model be measured.

    Raises UserError for whatever goes wrong in a user's own model or task too.
    """
    try:
        with guest(spec.seed, "global", whose=f"trial: {spec.model['name']}"):
            alone = Alone(prepare(spec, "cpu"))
            before = alone.read(None, None).losses["train_loss"]
            loss, _ = alone.take()
            if alone.trial.total > 1:  # what a model keeps of one step may spoil the next
                alone.take()
            if not (finite(before) and finite(loss.item())) and (blamed := blame(alone.trial, 0)) is not None:
                raise UserError(f"trial: {blamed}")
            if measure is not None and usercode.is_usercode(spec.model["name"]):
                _measure(alone, measure)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"trial: cannot be trained: {describe(error)}") from error


def layers(spec: TrialSpec) -> list[str]:
    """The names that the weight matrices of the trial's model have in the table ``layers``. Raises UserError."""
    try:
        with guest(spec.seed, "global", whose=f"trial: {spec.model['name']}"):
            observer = Observer(prepare(spec, "cpu"), Measure())
            return [matrix.layer for matrix in observer.matrices] + [each.layer for each in observer.operators]
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"trial: the model cannot be measured: {describe(error)}") from error


def _measure(alone: Alone, wanted: Measure) -> None:
    """Take those measurements that call the model, on a few samples; of the long ones, which take hundreds of products
    with a Hessian, a single product."""
    observer = Observer(replace(alone.trial, data=alone.trial.data.first(FEW)), wanted)
    snapshot = observer.snapshot(alone.read(None, None))
    for group in GROUPS:
        if getattr(wanted, group) == "none":
            continue
        try:
            if group in ("predictions", "activations", "kernel"):
                take(snapshot, {group})
            elif group in ("gradients", "curvature", "density"):
                _products(snapshot)
        except Exception as error:
            why = str(error) if isinstance(error, UserError) else describe(error)
            raise UserError(f"measure.{group}: the model cannot be measured like this: {why}; mend the "
                            f"model, or set measure.{group} to none") from error


def _products(snapshot: Snapshot) -> None:
    snapshot.shared(gradients)
    product = snapshot.shared(hessian)
    product(product.gradient)
    GaussNewton(snapshot.shared(objective))(product.gradient)


def equal_starts(one: TrialSpec, seeds: tuple[int, ...]) -> bool:
    """Whether a user's model starts from the same weights at two seeds, as it does where it seeds torch itself."""
    if len(seeds) < 2 or not usercode.is_usercode(one.model["name"]):
        return False
    data = load_data(one)
    first, second = (build_module(replace(one, seed=seed), data) for seed in seeds[:2])
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and not Memory(first, set(ours)).differs(Memory(second, set(ours))) and all(
        torch.equal(value, theirs[name]) for name, value in ours.items() if torch.is_tensor(value))
