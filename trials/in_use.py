"""Reparametrized layers: the weights that a model uses, where they are computed from its parameters.

A layer's spectra are those of the matrix that its forward pass multiplies by in evaluation mode. Where that is no
parameter but made of some, it takes their place among the layers, under the layer's own name (``fc1``, not
``fc1.parametrizations.weight.original0``):

- ``torch.nn.utils.parametrize``: weight_norm, spectral_norm, orthogonal, parametrizations of one's own;
- the older hooks of ``torch.nn.utils``: weight_norm, spectral_norm, pruning;
- low-rank adapters (LoRA): a module that is an affine map and holds a matrix beside two of a lower rank whose product
  has its shape. Its matrix is what it makes of the unit vectors, so scaling and merging are those of its own code;
- weights computed in a module's own code (trials/operands.py).

A factor on a layer's output is no part of its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from trials.modes import evaluation
from trials.operands import operands
from trials.optimizers.base import Params

_UNIT_VECTORS = 1024  # at a time


@dataclass(frozen=True)
class Computed:
    """The weight ``name`` (``fc1.weight``), and the parameters that it is made of. Its value is what ``read`` finds in
    the model, or the operand of this name in a forward pass."""

    name: str
    parts: frozenset[str]
    read: Callable[[nn.Module], Tensor] | str
    shape: tuple[int, ...] = ()


class WeightsInUse:
    """``in_use(params)`` are these tensors of ``module``, parameters and buffers, with the ``computed`` weights instead
    of their parts.

    Without an ``example`` (B, *input shape), weights that are computed in a module's own code are not seen.
    """

    def __init__(self, module: nn.Module, example: Tensor | None = None) -> None:
        with torch.no_grad(), evaluation(module):
            adapters = _adapters(module)
            known, seen = _apart(adapters, [*_parametrized(module), *_hooked(module)]), []
            if example is not None and _has_code(module):
                with suppress(Exception):  # what cannot be watched keeps its parameters
                    seen = [Computed(operand.name, operand.parts, operand.name)
                            for operand in operands(module, example.clone())]
            found = adapters + _together(known, _apart(adapters, seen))
            values = _Reader(module, found, example)()
        self.computed = [replace(each, shape=tuple(values[each.name].shape)) for each in found]
        self._reader = _Reader(module, self.computed, example)
        self._parts = frozenset[str]().union(*(each.parts for each in found))

    @torch.no_grad()
    def __call__(self, params: Params) -> Params:
        """Weights by name; ``params`` itself where none is computed."""
        if not self.computed:
            return params
        rest = {name: value for name, value in params.items() if name not in self._parts}
        with evaluation(self._reader.module):
            values = functional_call(self._reader, {f"module.{name}": value for name, value in params.items()}, ())
        return {**rest, **values}


class _Reader(nn.Module):
    """Its forward pass gives the weights in use: a module, so that ``functional_call`` can put parameters in place."""

    def __init__(self, module: nn.Module, found: list[Computed], example: Tensor | None) -> None:
        super().__init__()
        self.module, self._found, self._example = module, found, example

    def forward(self) -> Params:
        seen: Params = {}
        if any(isinstance(each.read, str) for each in self._found):
            assert self._example is not None
            seen = {operand.name: operand.value for operand in operands(self.module, self._example.clone())}
        nothing = next(self.module.parameters()).new_tensor(torch.nan)  # of a weight that this pass has not used
        return {each.name: seen.get(each.read, nothing.expand(each.shape)) if isinstance(each.read, str)
                else each.read(self.module).detach() for each in self._found}


def _apart(found: list[Computed], more: list[Computed]) -> list[Computed]:
    """Those of ``more`` that share no part with what is ``found``."""
    return [each for each in more if not any(each.parts & other.parts for other in found)]


def _together(known: list[Computed], seen: list[Computed]) -> list[Computed]:
    """Known reparametrizations and operands. An operand that is made of one of the first is what a module's own code
    makes of it, and is what counts, unless there are several."""
    found = []
    for each in known:
        its = [operand for operand in seen if operand.parts & each.parts]
        found.append(each if len(its) != 1 else Computed(each.name, each.parts | its[0].parts, its[0].read))
    return found + _apart(found, seen)


def _has_code(module: nn.Module) -> bool:
    """Whether any module is not torch's own, or has a hook before its forward pass."""
    return any(child._forward_pre_hooks or not type(child).__module__.startswith("torch.")
               for child in module.modules())


def _join(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _below(module: nn.Module, prefix: str) -> frozenset[str]:
    return frozenset(name for name, _ in module.named_parameters() if name.startswith(prefix))


def _parametrized(module: nn.Module) -> Iterator[Computed]:
    for layer, child in module.named_modules():
        if parametrize.is_parametrized(child):
            for name in child.parametrizations:
                def read(module: nn.Module, layer: str = layer, name: str = name) -> Tensor:
                    value: Tensor = getattr(module.get_submodule(layer), name)
                    return value
                yield Computed(_join(layer, name), _below(module, _join(layer, f"parametrizations.{name}.")), read)


def _hooked(module: nn.Module) -> Iterator[Computed]:
    for layer, child in module.named_modules():
        made: dict[str, set[str]] = {}
        for hook in child._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                made[hook.name] = {f"{hook.name}_g", f"{hook.name}_v"}
            elif isinstance(hook, SpectralNorm):
                made[hook.name] = {f"{hook.name}_orig"}
            elif isinstance(hook, BasePruningMethod):
                made[hook._tensor_name] = {f"{hook._tensor_name}_orig"}
        for parts in made.values():  # of a pruned weight_v, say
            for name in parts & set(made):
                parts |= made[name]
        for name in set(made) - set().union(*made.values()) if made else ():
            def read(module: nn.Module, layer: str = layer, name: str = name) -> Tensor:
                owner = module.get_submodule(layer)
                for hook in owner._forward_pre_hooks.values():
                    if isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)):
                        hook(owner, ())
                value: Tensor = getattr(owner, name)
                return value
            yield Computed(_join(layer, name), frozenset(_join(layer, part) for part in made[name]), read)


def _adapters(module: nn.Module) -> list[Computed]:
    """The innermost modules that are low-rank adapters."""
    found: list[Computed] = []
    for layer, child in reversed(list(module.named_modules())):
        inputs = _adapter_inputs([value.shape for value in child.parameters() if value.ndim >= 2])
        parts = _below(module, _join(layer, "")) if inputs else frozenset()
        if not any(parts & other.parts for other in found):
            for size in inputs:
                def read(module: nn.Module, layer: str = layer, size: int = size) -> Tensor:
                    return _affine(module.get_submodule(layer), size)[0]
                with suppress(Exception):  # no map of vectors of this size
                    matrix, offset = _affine(child, size)
                    x = torch.randn(1, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
                    x = x.to(matrix.device)
                    if torch.allclose(_apply(child, x), x @ matrix.double().mT + offset, rtol=1e-4, atol=1e-5):
                        found.append(Computed(_join(layer, "weight"), parts, read))
                        break
    return found[::-1]


def _adapter_inputs(shapes: list[torch.Size]) -> list[int]:
    """Sizes that the input may have if these are a matrix and two whose product has its shape and a lower rank."""
    if len(shapes) != 3 or any(len(shape) != 2 for shape in shapes):
        return []
    base = max(shapes, key=lambda shape: shape.numel())
    factors = list(shapes)
    factors.remove(base)
    for rank in set(factors[0]) & set(factors[1]):
        sides = sorted(shape.numel() // rank for shape in factors)
        if rank < min(base) and sides == sorted(base):
            return list(dict.fromkeys([base[1], base[0]]))
    return []


def _affine(child: nn.Module, size: int) -> tuple[Tensor, Tensor]:
    """(W, b) of the affine map that ``child`` is; W in the precision of its parameters, b in float64."""
    like = next(child.parameters())
    offset = _apply(child, torch.zeros(1, size, dtype=torch.float64, device=like.device))
    units = torch.split(torch.eye(size, dtype=torch.float64, device=like.device), _UNIT_VECTORS)
    return (torch.cat([_apply(child, some) for some in units]) - offset).mT.to(like.dtype), offset


def _apply(child: nn.Module, x: Tensor) -> Tensor:
    """In float64, so that taking the offset away costs no digits."""
    state = {**dict(child.named_parameters()), **dict(child.named_buffers())}
    wide = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
    output: Tensor = functional_call(child, wide, (x,))
    return output
