"""The matrices that a forward pass multiplies its input by, where the model computes them from its parameters.

Every torch function that the pass calls is seen. What is made of parameters alone, and then multiplied with what came
of the input, is a weight in use: ``F.linear(x, self.weight * self.mask)``, ``x @ (self.u @ self.v)``. A tensor that is
written in place is made of what was written into it. A buffer that is multiplied with instead of a parameter of its
shape, which the pass does not use, takes its place: an average of weights that is used in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LAYERS = (F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d,
          F.conv_transpose3d, F.embedding, F.embedding_bag)
PRODUCTS = (*LAYERS, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.einsum, Tensor.matmul, Tensor.mm, Tensor.bmm,
            Tensor.addmm, Tensor.__matmul__, Tensor.__rmatmul__)


@dataclass(frozen=True, eq=False)
class Operand:
    """A weight in use: its ``name`` among the parameters, the ``parts`` (parameters) it is made of, and its value."""

    name: str
    parts: frozenset[str]
    value: Tensor


def operands(module: nn.Module, example: Tensor) -> list[Operand]:
    """The weights that ``module`` computes, in the order in which its forward pass on ``example`` uses them.

    The name is that of the parameter a weight is made of, where only one of its parts has two dimensions or more, or
    only one is called ``weight``; else ``weight`` of the module that holds the parts; with ``#2`` behind it where that
    name is taken. Parts that the pass
    also multiplies by as they are, are not among ``parts``.
    """
    params = dict(module.named_parameters())
    devices = [example.device] if example.is_cuda else []
    buffers = [value for value in module.buffers() if value.ndim >= 2 and value.is_floating_point()]
    with torch.random.fork_rng(devices), torch.no_grad(), _Watch(params, buffers, example) as watch:
        module(example)
    kept: list[tuple[frozenset[str], Tensor]] = []
    for parts, value in watch.computed:
        if not any(parts == others and torch.equal(value, other) for others, other in kept):
            kept.append((parts, value))
    parted = frozenset().union(*(parts for parts, _ in kept)) - watch.direct
    taken = set(params) - parted
    found = []
    for parts, value in kept:
        name = _name(parts, params, taken)
        taken.add(name)
        found.append(Operand(name, parts & parted, value))
    unused = {name: value for name, value in params.items() if name not in watch.used}
    for value in watch.frozen:
        instead = [name for name, other in unused.items() if other.shape == value.shape]
        if len(instead) == 1:
            found.append(Operand(instead[0], frozenset(instead), value))
            del unused[instead[0]]
    return found


def _name(parts: Collection[str], params: Mapping[str, Tensor], taken: Collection[str]) -> str:
    matrices = sorted(name for name in parts if params[name].ndim >= 2)
    called = [name for name in matrices if name.split(".")[-1] == "weight"]
    if len(matrices) == 1 or len(called) == 1:
        name = (called or matrices)[0]
    else:
        holders = [name.split(".")[:-1] for name in matrices or parts]
        shared = next(n for n in count() if n == min(map(len, holders)) or len({tuple(h[:n + 1]) for h in holders}) > 1)
        name = ".".join([*holders[0][:shared], "weight"])
    return next(n for n in (name, *(f"{name}#{k}" for k in range(2, len(taken) + 3))) if n not in taken)


class _Watch(TorchFunctionMode):
    """Tells what is made of parameters alone from what is made of the input, function by function."""

    def __init__(self, params: Mapping[str, Tensor], buffers: Iterable[Tensor], example: Tensor) -> None:
        super().__init__()
        self._made = {id(value): (value, frozenset[str]()) for value in buffers}
        self._made |= {id(value): (value, frozenset([name])) for name, value in params.items()}
        self._written: dict[int, Tensor] = {}  # by storage
        self._flowing = {id(example): example}  # tensors are kept, so that their ids stay theirs
        self._storages = {value.untyped_storage().data_ptr(): name for name, value in params.items() if value.numel()}
        self.computed: list[tuple[frozenset[str], Tensor]] = []
        self.direct: set[str] = set()
        self.used: set[str] = set()
        self.frozen: list[Tensor] = []  # made of buffers alone

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = list(_tensors((args, kwargs)))
        for value in given:
            self._recall(value)
        result = func(*args, **(kwargs or {}))
        made = [self._made[id(value)][1] for value in given if id(value) in self._made]
        parts = frozenset[str]().union(*made)
        self.used |= parts
        flows = any(id(value) in self._flowing for value in given)
        if func in PRODUCTS and flows:
            for value in given:
                if value.ndim >= 2 and id(value) in self._made:
                    self._note(value)
        # A layer applied to learned tokens, say, gives activations: they flow, as the input's do.
        flows |= func in LAYERS
        changed = list(_tensors(args[:1])) if _in_place(func) else []
        for value in (*_tensors(result), *_tensors((kwargs or {}).get("out")), *changed):
            if flows:
                self._flowing[id(value)] = value
                self._made.pop(id(value), None)
            elif made:
                self._made[id(value)] = value, parts
        for value in changed:
            if value.untyped_storage().data_ptr() not in self._storages:
                self._written[value.untyped_storage().data_ptr()] = value
        return result

    def _recall(self, value: Tensor) -> None:
        """A view of what was written in place, or what a view of it was written into, is made of the same."""
        if id(value) in self._made or id(value) in self._flowing or not self._written:
            return
        if (other := self._written.get(value.untyped_storage().data_ptr())) is not None:
            if id(other) in self._flowing:
                self._flowing[id(value)] = value
            elif id(other) in self._made:
                self._made[id(value)] = value, self._made[id(other)][1]

    def _note(self, value: Tensor) -> None:
        name = self._storages.get(value.untyped_storage().data_ptr())
        if not self._made[id(value)][1]:
            self.frozen.append(value)
        elif name is None:
            self.computed.append((self._made[id(value)][1], value.clone()))
        else:
            self.direct.add(name)


def _in_place(func: Any) -> bool:
    """Whether a function changes its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, Iterable) and isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
