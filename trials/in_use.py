"""Reparametrized layers: the weights that a model uses, where they are computed from its parameters.

A layer's spectra are those of the matrix that its forward pass multiplies by in evaluation mode. Where that is no
parameter but made of some, it takes their place among the layers, under the layer's own name (``fc1``, not
``fc1.parametrizations.weight.original0``):

- ``torch.nn.utils.parametrize``: weight_norm, spectral_norm, orthogonal, parametrizations of one's own;
- the older hooks of ``torch.nn.utils``: weight_norm, spectral_norm, pruning;
- low-rank adapters (LoRA): W + s B A (trials/lowrank.py);
- weights computed in a module's own code, and averages of weights that take their place in evaluation mode
  (trials/operands.py).

A factor on a layer's output is no part of its weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from trials.computed import Computed, below, join
from trials.lowrank import adapters
from trials.modes import evaluation, switches
from trials.operands import operands
from trials.optimizers.base import Params
from trials.prehooks import making

UNSEEN = "as stored: the forward pass was not seen to multiply by it as it is"
SCALED = "its output is scaled by a factor made of it, which is no part of these numbers"


class WeightsInUse:
    """``in_use(params)`` are these tensors of ``module``, parameters and buffers, with the ``computed`` weights instead
    of their parts.

    ``doubts`` says of some, by name, why their numbers may not be those of what is in use. Without an ``example``
    (B, *input shape), weights that are computed in a module's own code are not seen.
    """

    def __init__(self, module: nn.Module, example: Tensor | None = None) -> None:
        with torch.no_grad(), evaluation(module):
            adapted = adapters(module, example)
            known, seen = _apart(adapted, [*_parametrized(module), *_hooked(module)]), []
            stored, scaled = dict[str, str](), frozenset[str]()
            if example is not None and _has_code(module):
                params = {name for name, value in module.named_parameters() if value.ndim >= 2}
                try:
                    watched = operands(module, example.clone())
                except Exception as error:  # its parameters are all that is known
                    stored = dict.fromkeys(params, f"as stored: the forward pass cannot be followed ({error!r})")
                else:
                    seen = [Computed(operand.name, operand.parts, operand.name) for operand in watched.computed]
                    stored, scaled = dict.fromkeys(params - watched.plain, UNSEEN), watched.scaled & params
            adapted = [_final(each, seen, module) for each in adapted]
            found = adapted + _together(_apart(adapted, known), _apart(adapted, seen))
            values = _Reader(module, found, example)._computed()
        self.computed = [replace(each, shape=tuple(values[each.name].shape)) for each in found]
        self._reader, self._switches = _Reader(module, self.computed, example), switches(module)
        self._parts = frozenset[str]().union(*(each.parts for each in found))
        self.doubts = {**dict.fromkeys(scaled - self._parts, SCALED),
                       **{each.name: SCALED for each in found if each.parts & scaled and not each.whole},
                       **{name: why for name, why in stored.items() if name not in self._parts | set(values)}}

    @property
    def as_stored(self) -> bool:
        """Whether none is computed, and none depends on the module's mode."""
        return not self.computed and not self._switches

    @torch.no_grad()
    def __call__(self, params: Params) -> Params:
        """Weights by name; ``params`` itself where none is computed."""
        if self.as_stored:
            return params
        held = {name: value.clone() for name, value in params.items()} if self._switches else params
        values, found = functional_call(self._reader, {f"module.{name}": value for name, value in held.items()}, ())
        return {**{name: values.get(name, value) for name, value in params.items() if name not in self._parts}, **found}


class _Reader(nn.Module):
    """Its forward pass gives the module's tensors, where they depend on its mode, and the computed weights, both as in
    evaluation mode: a module, so that ``functional_call`` can put parameters in place."""

    def __init__(self, module: nn.Module, found: list[Computed], example: Tensor | None) -> None:
        super().__init__()
        self.module, self._found, self._example = module, found, example

    def forward(self) -> tuple[Params, Params]:
        with evaluation(self.module):
            merged = {name: value.detach().clone() for name, value in (
                *self.module.named_parameters(), *self.module.named_buffers())} if switches(self.module) else {}
            return merged, self._computed()

    def _computed(self) -> Params:
        seen: Params = {}
        if any(isinstance(each.read, str) for each in self._found):
            assert self._example is not None
            seen = {operand.name: operand.value for operand in operands(self.module, self._example.clone()).computed}
        nothing = next(self.module.parameters()).new_tensor(torch.nan)  # of a weight that this pass has not used
        return {each.name: seen.get(each.read, nothing.expand(each.shape)) if isinstance(each.read, str)
                else each.read(self.module).detach() for each in self._found}


def _apart(found: list[Computed], more: list[Computed]) -> list[Computed]:
    """Those of ``more`` that share no part with what is ``found``."""
    return [each for each in more if not any(each.parts & other.parts for other in found)]


def _final(adapter: Computed, seen: list[Computed], module: nn.Module) -> Computed:
    """An adapter, or what a module's own code makes of it as a whole (DoRA): an operand that is made of all its parts,
    unless there are several."""
    parts = adapter.parts & {name for name, value in module.named_parameters() if value.ndim >= 2}
    made = [operand for operand in seen if operand.parts >= parts]
    if adapter.whole or len(made) != 1:
        return adapter
    return Computed(adapter.name, adapter.parts | made[0].parts, made[0].read)


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


def _parametrized(module: nn.Module) -> Iterator[Computed]:
    for layer, child in module.named_modules():
        if parametrize.is_parametrized(child):
            for name in child.parametrizations:
                def read(module: nn.Module, layer: str = layer, name: str = name) -> Tensor:
                    value: Tensor = getattr(module.get_submodule(layer), name)
                    return value
                yield Computed(join(layer, name), below(module, join(layer, f"parametrizations.{name}.")), read)


def _hooked(module: nn.Module) -> Iterator[Computed]:
    for layer, child in module.named_modules():
        made = {name: set(parts) for _, name, parts in making(child)}
        for parts in made.values():  # of a pruned weight_v, say
            for name in parts & set(made):
                parts |= made[name]
        for name in set(made) - set().union(*made.values()) if made else ():
            def read(module: nn.Module, layer: str = layer, name: str = name) -> Tensor:
                owner = module.get_submodule(layer)
                for hook, *_ in making(owner):
                    hook(owner, ())
                value: Tensor = getattr(owner, name)
                return value
            yield Computed(join(layer, name), frozenset(join(layer, part) for part in made[name]), read)
