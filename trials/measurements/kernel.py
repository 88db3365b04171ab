"""The empirical neural tangent kernel (Jacot et al. 2018, arXiv 1806.07572) on the probe set.

K_ij = sum_c <grad f_c(x_i), grad f_c(x_j)>, (N, N): the trace over the C outputs, with no division by C. (The cheaper
kernel of the sum of the outputs would not do for classes: adding one number to all logits leaves the softmax alone.)
Alignment with the labels, y^T K y / (||K||_F ||y||^2), reads <K, Y Y^T>_F / (||K||_F ||Y Y^T||_F) for several outputs;
Y are the targets (one-hot for classes) minus their mean over the probe set. Drift is ||K - K_0||_F / ||K_0||_F, K_0 the
kernel before training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.nulls import values
from trials.measurements.probe import probe
from trials.network import Network
from trials.optimizers.base import Params

PROBE = 64  # samples at most
ENTRIES = 2**26  # gradient entries in memory at most (256 MiB in float32); where less than all fit, some are recomputed
COLUMNS = (
    number("ntk_lambda_max", "largest eigenvalue of K / N, K the tangent kernel (trace over outputs) of N samples"),
    number("ntk_effective_rank", "e^(-sum p ln p), p the eigenvalues of K over their sum"),
    number("ntk_drift", "||K - K_0||_F / ||K_0||_F, K_0 the kernel before training"),
    number("ntk_alignment", "<K, Y Y^T> / (||K|| ||Y Y^T||), Y the targets minus their mean"),
)

Kernels = dict[str, Tensor]  # layer -> (N, N) float64


def kernels(network: Network, params: Params, buffers: Params, x_N: Tensor, outputs: int) -> Kernels:
    """The tangent kernel (N, N) of each layer's parameters (``fc1``); the kernel of the model is their sum.

    Gradients are of the model's own type, a kernel is accumulated in float64. Memory is bounded by ENTRIES, or by the
    gradients of two samples.
    """
    width = max(1, ENTRIES // (2 * sum(value.numel() for value in params.values())))
    blocks = range(0, len(x_N), width)
    found: Kernels = {name.rpartition(".")[0] or name: x_N.new_zeros((len(x_N), len(x_N)), dtype=torch.float64)
                      for name in params}
    with network.evaluating():
        for output in range(outputs):
            gradients = _per_sample(network, buffers, output)
            for i in blocks:
                left = gradients(params, x_N[i : i + width])
                for j in range(0, i + 1, width):
                    right = left if j == i else gradients(params, x_N[j : j + width])
                    for name in params:
                        part = left[name].flatten(1) @ right[name].flatten(1).mT
                        kernel_NN = found[name.rpartition(".")[0] or name]
                        kernel_NN[i : i + width, j : j + width] += part
                        if j != i:
                            kernel_NN[j : j + width, i : i + width] += part.mT
    return found


def _per_sample(network: Network, buffers: Params, output: int) -> Callable[[Params, Tensor], Params]:
    """(params, (B, ...)) -> gradient of one output for each sample, (B, *shape of the parameter) by name."""
    def value(params: Params, x: Tensor) -> Tensor:
        return network(params, buffers, x[None])[0, output]
    return vmap(grad(value), in_dims=(None, 0))


def _norm(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(matrix)
    return norm


def alignment(kernel_NN: Tensor, target_NC: Tensor) -> Tensor:
    """Cosine of K and Y Y^T, Y the centred targets; NaN if K is zero or all targets are equal."""
    y_NC = (target_NC - target_NC.mean(0)).to(kernel_NN.dtype)
    labels_NN = y_NC @ y_NC.mT
    cosine: Tensor = (kernel_NN * labels_NN).sum() / (_norm(kernel_NN) * _norm(labels_NN))
    return cosine


def now(snapshot: Snapshot) -> Kernels | None:
    """Kernels at the snapshot, by layer; None where one is not finite or the model cannot be mapped over samples (user
    code that branches on values). Use it as ``snapshot.shared(now)``."""
    return _of(snapshot, snapshot.params, snapshot.buffers)


def before(snapshot: Snapshot) -> Kernels | None:
    """Kernels before training. Use it as ``snapshot.once(before)``."""
    return _of(snapshot, snapshot.initial, snapshot.initial_buffers)


def _of(snapshot: Snapshot, params: Params, buffers: Params) -> Kernels | None:
    x_N, _ = probe(snapshot.data, PROBE)
    try:
        found = kernels(snapshot.network, params, buffers, x_N, snapshot.data.outputs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    finite = torch.stack([kernel_NN.isfinite().all() for kernel_NN in found.values()]).all()
    return found if bool(finite) else None


def function(snapshot: Snapshot) -> Values:
    """The columns; null where there is no kernel, or it is zero."""
    present, initial = snapshot.shared(now), snapshot.once(before)
    if present is None or initial is None:
        return {column.name: None for column in COLUMNS}
    kernel_NN, initial_NN = (torch.stack(list(each.values())).sum(0) for each in (present, initial))
    _, y_N = probe(snapshot.data, PROBE)
    eigenvalues = torch.linalg.eigvalsh(kernel_NN).clamp(min=0.0)
    p = eigenvalues / eigenvalues.sum()
    return values({
        "ntk_lambda_max": eigenvalues[-1] / len(kernel_NN),
        "ntk_effective_rank": torch.special.entr(p).sum().exp(),
        "ntk_drift": _norm(kernel_NN - initial_NN) / _norm(initial_NN),
        "ntk_alignment": alignment(kernel_NN, snapshot.data.target(y_N)),
    })


MEASUREMENT = Measurement("kernel", "steps", COLUMNS, function)
