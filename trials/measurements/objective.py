"""The training loss without knobs, as a function of all parameters as one vector: what curvature and gradients are of.

Shapes: P parameters, n samples, C outputs. All of it is in float64, whatever the precision of the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trials.errors import UserError
from trials.measurements.base import Snapshot, parameters_vector
from trials.measurements.probe import probe
from trials.network import Network
from trials.optimizers.base import Params
from trials.tasks.base import Data

# The Hessian's graph is kept between its products, and so needs memory (and each product time) in proportion: 512
# samples of a network of 1e5 activations a sample hold about 1 GB.
PROBE = 512


@dataclass(frozen=True, eq=False)
class Objective:
    """The mean loss of the samples ``x_n`` (n, *input_shape), ``target_nC``; ``theta_P`` are the parameters now.

    The model is in evaluation mode (no dropout of its own, stored statistics in its batch norms), so that the loss is
    the one in the column ``train_loss`` and every sample has a loss of its own.
    """

    network: Network
    data: Data
    shapes: Mapping[str, torch.Size]
    buffers: Params
    theta_P: Tensor
    x_n: Tensor
    target_nC: Tensor

    def on(self, x_n: Tensor, y_n: Tensor) -> Objective:
        """The same of other samples of the task."""
        return replace(self, x_n=x_n.double(), target_nC=self.data.target(y_n).double())

    def outputs(self, theta_P: Tensor, x_n: Tensor) -> Tensor:
        """The network's outputs (n, C) with parameters ``theta_P``."""
        pieces = torch.split(theta_P, [shape.numel() for shape in self.shapes.values()])
        params = {name: piece.reshape(shape)
                  for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}
        with self.network.evaluating(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            return self.network(params, self.buffers, x_n)

    def losses(self, theta_P: Tensor, x_n: Tensor, target_nC: Tensor) -> Tensor:
        """The loss of each sample, (n,)."""
        return self.data.loss(self.outputs(theta_P, x_n), target_nC)

    def sample_loss(self, theta_P: Tensor, x: Tensor, target_C: Tensor) -> Tensor:
        """The loss of one sample ``x`` (*input_shape), without dimensions."""
        return self.losses(theta_P, x[None], target_C[None])[0]

    def loss(self, theta_P: Tensor) -> Tensor:
        """The mean loss, without dimensions."""
        return self.losses(theta_P, self.x_n, self.target_nC).mean()


def objective(snapshot: Snapshot) -> Objective:
    """The objective on the probe set: ``PROBE`` samples of the training set, or all if it has no more. Raises UserError
    for a model whose backward pass reads its weights."""
    if snapshot.network.backward_reads:
        raise UserError("its backward pass reads its weights (torch.utils.checkpoint, or a hook of its own), and here "
                        "derivatives are of what the forward pass computes alone")
    buffers = {name: value.double() if value.is_floating_point() else value.clone()
               for name, value in snapshot.buffers.items()}
    shapes = {name: value.shape for name, value in snapshot.params.items()}
    theta_P = parameters_vector(snapshot.params).detach().double()
    empty = theta_P.new_empty(0)
    return Objective(snapshot.network, snapshot.data, shapes, buffers, theta_P, empty, empty).on(
        *probe(snapshot.data, PROBE))
