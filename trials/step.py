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
        loss, grads = gradient(params)
        with torch.no_grad():
            for name in self._at["gradient"]:
                grads = self._knobs[name].gradient(grads, params, moments[name])
            self._scheduled(step).update(params, grads, state)
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
            return value, self._network.hooked(found)
        leaves = {name: self._leaf(name, value) for name, value in params.items()}
        held = {name: value.detach() for name, value in buffers.items()}  # the same memory
        with self._network.differentiating():
            loss = self._objective(leaves, held, batch, moments)
            # A user's model may hold parameters that its forward pass does not use: their gradient is zero.
            each = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            grads = self._network.hooked({name: grad.to_dense() if grad.is_sparse else grad
                                          for name, grad in zip(leaves, each, strict=True)})
        buffers.update({name: value.detach() for name, value in held.items()})
        for name, leaf in leaves.items():
            if leaf.data_ptr() != params[name].data_ptr():  # the model gave it other memory: weight.data = ...
                params[name].copy_(leaf.detach())
        return loss.detach(), grads

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
        earlier = [leaf for leaf in self._leaves.values() if leaf.requires_grad]
        with self._network.forgetting():
            output = self._network(leaves, {name: value.clone() for name, value in buffers.items()}, x_B)
        return bool(earlier) and any(grad is not None for grad in torch.autograd.grad(
            output.sum(), earlier, allow_unused=True, retain_graph=True))

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
