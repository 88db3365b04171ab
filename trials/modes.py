"""Training and evaluation mode of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode; afterwards each of its parts is in its own mode again, which may differ (the batch
    norms of a frozen backbone)."""
    modes = [(child, child.training) for child in module.modules()]
    try:
        yield module.eval()
    finally:
        if switches(module):
            module.train(modes[0][1])
        for child, mode in modes:
            child.training = mode


def switches(module: nn.Module) -> bool:
    """Whether a part of it has a ``train`` of its own, which may do more than say the mode: merge adapters into the
    weights, for example."""
    return any(type(child).train is not nn.Module.train for child in module.modules())
