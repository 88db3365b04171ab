"""The weight matrices of a model, as the ``layers`` table names them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trials.optimizers.base import Params

KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"), (nn.Conv1d, "conv1d"), (nn.Conv2d, "conv2d"), (nn.Embedding, "embedding"))


@dataclass(frozen=True)
class Matrix:
    """One weight: parameter ``name`` (``fc1.weight``), its ``layer`` (``fc1``) and the ``kind`` of the layer.

    A convolution's kernel (out, in, h, w) is flattened to (out, in * h * w); weights of other modules with two or more
    dimensions count as ``parameter``, flattened likewise.
    """

    name: str
    layer: str
    kind: str

    def of(self, params: Params) -> Tensor:
        """The weight as a matrix, (out, everything else)."""
        return params[self.name].flatten(1)


def matrices(module: nn.Module) -> list[Matrix]:
    """All weights of two or more dimensions, in the order of the module's parameters."""
    modules = dict(module.named_modules())
    found = []
    for name, value in module.named_parameters():
        if value.ndim < 2:
            continue
        owner, _, leaf = name.rpartition(".")
        kind = next((kind for cls, kind in KINDS if isinstance(modules[owner], cls)), "parameter")
        found.append(Matrix(name, owner if owner and leaf == "weight" else name, kind))
    return found
