"""A weight that a model computes from its parameters, under its own name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Computed:
    """The weight ``name`` (``fc1.weight``), and the parameters (and buffers) that it is made of. Its value is what
    ``read`` finds in the model, or the operand of this name in a forward pass. It is ``whole`` if it is all that a
    module does to its input, factors on the output included."""

    name: str
    parts: frozenset[str]
    read: Callable[[nn.Module], Tensor] | str
    shape: tuple[int, ...] = ()
    whole: bool = False


def join(layer: str, name: str) -> str:
    """The name of a tensor of a layer; that of the model itself is ""."""
    return f"{layer}.{name}" if layer else name


def below(module: nn.Module, prefix: str) -> frozenset[str]:
    """The parameters whose names begin so."""
    return frozenset(name for name, _ in module.named_parameters() if name.startswith(prefix))
