"""Small trials whose Hessians can be written out, and an implementation of the loss that shares nothing with ours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials.measurements.base import Snapshot
from trials.network import Network, tensors
from trials.streams import Stream
from trials.tasks.base import Data

torch.set_num_threads(1)
F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def classification(n: int = 20, inputs: int = 3, classes: int = 3) -> Data:
    x, y = normal(n, inputs), torch.arange(n) % classes
    return Data(x, y, x, y, classes)


def regression(n: int = 20, inputs: int = 3, outputs: int = 1) -> Data:
    x, y = normal(n, inputs), normal(n, outputs, seed=1)
    return Data(x, y, x, y, None)


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    """Fully connected, float64, with weights large enough for curvature of both signs."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.Linear(before, after), activation()]
        layers[-2].weight.data = normal(after, before, seed=10 + i)
        layers[-2].bias.data = normal(after, seed=20 + i)
    return nn.Sequential(*layers[:-1]).to(F64)


def snapshot(module: nn.Module, data: Data, *, batch_size: int = 4, lr: float = 0.1, momentum: float = 0.0,
             step: int = 0, seed: int = 0) -> Snapshot:
    network = Network(module)
    params, buffers = tensors(module)
    return Snapshot(network, params, buffers, params, buffers, data, step, batch_size, lr, momentum,
                    Stream.of(seed, "measurements"))


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def sample_losses(module: nn.Module, data: Data) -> Callable[[Tensor], Tensor]:
    """Losses (n,) of the training set as a function of all parameters."""
    names = [name for name, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]

    def losses(theta: Tensor) -> Tensor:
        pieces = theta.split([shape.numel() for shape in shapes])
        params = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        out = torch.func.functional_call(module, params, (data.x_train,))
        if data.classes is not None:
            return F.cross_entropy(out, data.y_train, reduction="none")
        return 0.5 * F.mse_loss(out, data.y_train, reduction="none").sum(1)
    return losses


def exact_hessian(module: nn.Module, data: Data) -> Tensor:
    losses = sample_losses(module, data)
    return torch.func.jacrev(torch.func.jacrev(lambda theta: losses(theta).mean()))(flat(module))


def sample_gradients(module: nn.Module, data: Data) -> Tensor:
    """(n, P)."""
    return torch.func.jacrev(sample_losses(module, data))(flat(module))


CASES = {
    "cross-entropy": (mlp(3, 4, 3), classification()),
    "squared loss": (mlp(3, 4, 2), regression(outputs=2)),
    "relu": (mlp(3, 5, 4, 3, activation=nn.ReLU), classification()),
}
