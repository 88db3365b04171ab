"""Hooks before the forward pass that make a tensor of others: the older reparametrizations of ``torch.nn.utils``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def making(child: nn.Module) -> Iterator[tuple[Any, str, frozenset[str]]]:
    """Those of one module, in the order in which they run: the hook, what it makes, and what it makes it of."""
    for hook in child._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield hook, hook.name, frozenset({f"{hook.name}_g", f"{hook.name}_v"})
        elif isinstance(hook, SpectralNorm):
            yield hook, hook.name, frozenset({f"{hook.name}_orig"})
        elif isinstance(hook, BasePruningMethod):
            yield hook, hook._tensor_name, frozenset({f"{hook._tensor_name}_orig"})


def lagging(module: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of tensors that are made before what they are made of is: they are those of the pass before."""
    for layer, child in module.named_modules():
        made = [(name, parts) for _, name, parts in making(child)]
        for place, (name, parts) in enumerate(made):
            for part in parts.intersection(later for later, _ in made[place + 1:]):
                yield f"{layer}.{name}".lstrip("."), f"{layer}.{part}".lstrip(".")
