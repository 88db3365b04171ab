"""The training step, written once: a function of parameters, buffers, optimizer state, batch and hyperparameters.

It reads from top to bottom in the order of the nine places where knobs enter (see trials.knobs.base).
Shapes: B batch, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trials.errors import UserError
from trials.gradient import value_and_gradient
from trials.knobs.base import PLACES, Gradient, Knob, Moment, places
from trials.network import Network
from trials.optimizers.base import Optimizer, Params, State
from trials.schedules.base import Schedule
from trials.schedules.constant import Constant
from trials.tasks.base import Data


@dataclass(frozen=True)
class Batch:
    """One batch: ``x_B`` (B, *input_shape), ``target_BC`` (B, C), and which samples of the training set it holds, (B,)
    int64; None where data are fresh."""

    x_B: Tensor
    target_BC: Tensor
    samples_B: Tensor | None = None


class Step:
    """One step of training of one trial. ``knobs`` by name, in the order in which they apply at one place.

    ``total`` is the number of steps of the trial's budget, for the schedule. ``functional`` takes gradients by
    ``torch.func``, as a lane of a pack must (see trials/packs/lanes.py), where a trial alone takes them by autograd.
    """

    def __init__(self, network: Network, data: Data, optimizer: Optimizer, schedule: Schedule,
                 knobs: Mapping[str, Knob], total: int | Tensor, *, functional: bool = False) -> None:
        self._network, self._data, self._knobs = network, data, knobs
        self._optimizer, self._schedule, self._total = optimizer, schedule, total
        self._functional = functional
        # In a pack whose lanes differ in it, the warm-up is a tensor, and is not to be compared with anything.
        self._constant = (isinstance(schedule, Constant) and not isinstance(schedule.warmup, Tensor)
                          and schedule.warmup == 0.0)
        self._leaves: Params = {}
        self._used: set[str] = set()
        self._at: dict[str, list[str]] = {
            place: [name for name, knob in knobs.items() if place in places(type(knob))] for place in PLACES}
        for name, knob in knobs.items():
            if knob.needs_classes and data.classes is None:
                raise UserError(f"trial.knobs.{name}: works on class probabilities, but the task is a regression")
        if self._at["activation"] and network.backward_reads:
            raise UserError(f"trial.knobs.{self._at['activation'][0]}: changes hidden activations, and the "
                            "backward pass of the model reads its weights (torch.utils.checkpoint, or a hook of its "
                            "own); leave out one of the two")
        if self._at["activation"] and not network.has_nonlinearities:
            raise UserError(f"trial.knobs.{self._at['activation'][0]}: changes hidden activations, but the model has "
                            "no nonlinearity that is a torch.nn module; write nn.ReLU() instead of F.relu")

    def __call__(self, params: Params, buffers: Params, state: State, batch: Batch, step: int | Tensor,
                 moments: Mapping[str, Moment]) -> tuple[Tensor, Params]:
        """Take step number ``step``, from 0, in place on ``params``, ``buffers`` and ``state``.

        Returns the loss of the batch with all knobs in force, and the gradient as the optimizer got it. Where a knob
        takes several gradients, each is that of the model with its buffers as they were before the step, and the
        buffers after the first are kept: so they are updated once, at the parameters where the step begins.
        """
        gradient: Gradient = partial(self._gradient, batch, moments, buffers)
        if buffers and self._at["sharpness"]:
            gradient = self._once(gradient, batch, moments, buffers)
        for name in reversed(self._at["sharpness"]):  # the first named is the outermost
            gradient = partial(self._knobs[name].sharpness, gradient, moment=moments[name])
        self._used.clear()
        loss, grads = gradient(params)
        with torch.no_grad():
            for name in self._at["gradient"]:
                grads = self._knobs[name].gradient(grads, params, moments[name])
            # As in torch, a parameter that the forward pass did not use is left alone: no momentum, no decay.
            self._scheduled(step).update({name: params[name] for name in params if name in self._used}, grads, state)
            for name in () if self._functional else params.keys() - self._used:
                skipped = state.setdefault("skipped", {})
                skipped[name] = skipped.get(name, params[name].new_zeros((), dtype=torch.float64)) + 1.0
            for name in self._at["update"]:
                self._knobs[name].update(params, moments[name])
        return loss, grads

    def _scheduled(self, step: int | Tensor) -> Optimizer:
        if self._constant:
            return self._optimizer
        now, total = (torch.as_tensor(number).to(torch.float64) for number in (step, self._total))
        return self._optimizer.scheduled(self._schedule.factor(now, total))

    def _once(self, first: Gradient, batch: Batch, moments: Mapping[str, Moment], buffers: Params) -> Gradient:
        """``first``, which updates ``buffers``, at the first call; later the gradient with copies of them."""
        before = {name: value.clone() for name, value in buffers.items()}
        left = [first]

        def gradient(params: Params) -> tuple[Tensor, Params]:
            if left:
                return left.pop()(params)
            return self._gradient(batch, moments, {name: value.clone() for name, value in before.items()}, params)
        return gradient

    def _gradient(self, batch: Batch, moments: Mapping[str, Moment], buffers: Params, params: Params,
                  ) -> tuple[Tensor, Params]:
        if self._functional:
            value, found = value_and_gradient(
                lambda leaves, held: self._objective(leaves, held, batch, moments), params, buffers)
            return value, self._network.hooked(self._filled(found, params))
        leaves = {name: self._leaf(name, value) for name, value in params.items()}
        held = {name: value.detach() for name, value in buffers.items()}  # the same memory
        _forget(leaves)
        with self._network.differentiating():
            loss = self._objective(leaves, held, batch, moments)
            loss.backward()  # type: ignore[no-untyped-call]
            grads = self._network.hooked(self._filled({name: leaf.grad.to_dense() for name, leaf in leaves.items()
                                                       if leaf.grad is not None}, params))
        _forget(leaves)
        buffers.update({name: value.detach() for name, value in held.items()})
        # The model may have given them other memory (weight.data = ...), another's even.
        moved = {name: leaf.detach().clone() for name, leaf in leaves.items()
                 if leaf.data_ptr() != params[name].data_ptr()}
        for name, value in moved.items():
            params[name].copy_(value)
        return loss.detach(), grads

    def _filled(self, found: Params, params: Params) -> Params:
        """Gradients of all ``params``: those of the parameters that the forward pass did not use are zero."""
        self._used |= found.keys()
        return {name: found[name] if name in found else torch.zeros_like(value) for name, value in params.items()}

    def _leaf(self, name: str, value: Tensor) -> Tensor:
        """``value`` as a leaf of autograd's graph: in all steps the same, as a module's parameters are, so that a
        tensor which a model keeps from one forward pass to a later one leads to the parameters it was made of."""
        leaf = self._leaves.get(name)
        if leaf is not None and leaf.data_ptr() == value.data_ptr():
            return leaf
        made = value.detach().requires_grad_()
        if leaf is None:  # a knob's other parameters, which come between, have leaves of their own
            self._leaves[name] = made
        return made

    def reaches_back(self, params: Params, buffers: Params, x_B: Tensor) -> bool:
        """Whether the next output would follow from parameters by way of what the model keeps of earlier passes."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        _forget(self._leaves)
        with self._network.forgetting(), self._network.differentiating():
            output = self._network(leaves, {name: value.clone() for name, value in buffers.items()}, x_B)
            output.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        reached = any(leaf.grad is not None for leaf in self._leaves.values())
        _forget(self._leaves)
        return reached

    def _objective(self, params: Params, buffers: Params, batch: Batch, moments: Mapping[str, Moment]) -> Tensor:
        """The number whose gradient is taken: the mean loss over the batch plus the penalties."""
        knobs, at = self._knobs, self._at
        x_B, target_BC = batch.x_B, batch.target_BC
        for name in at["input"]:
            x_B = knobs[name].input(x_B, moments[name])
        for name in at["target"]:
            target_BC = knobs[name].target(target_BC, moments[name])
        weights = params
        for name in at["weights"]:
            weights = knobs[name].weights(weights, moments[name])

        def tap(h_B: Tensor, site: int) -> Tensor:
            for name in at["activation"]:
                h_B = knobs[name].activation(h_B, site, moments[name])
            return h_B

        output_BC = self._network(weights, buffers, x_B, tap if at["activation"] else None)
        loss_B = self._data.loss(output_BC, target_BC)
        for name in at["loss"]:
            loss_B = knobs[name].loss(loss_B, output_BC, target_BC, moments[name])
        total = loss_B.mean()
        for name in at["penalty"]:
            total = total + knobs[name].penalty(params, moments[name]).to(total.dtype)
        return total


def _forget(leaves: Params) -> None:
    for leaf in leaves.values():
        leaf.grad = None
