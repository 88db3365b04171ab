"""The matrices that a forward pass multiplies its input by, where the model computes them from its parameters.

Every torch function that the pass calls is seen. What is made of parameters alone, and then multiplied with what came
of the input (trials/factors.py), is a weight in use: ``F.linear(x, self.weight * self.mask)``, ``x @ (self.u @
self.v)``. A tensor that is written in place is made of what was written into it. A buffer that is multiplied with
instead of a parameter of its shape, which the pass does not use, takes its place: an average of weights that is used in
evaluation mode.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trials.factors import Factors, tensors

# Functions that have weights, and how many of their arguments, the first ones, are activations (or states).
LAYERS = {F.linear: 1, F.bilinear: 2, F.conv1d: 1, F.conv2d: 1, F.conv3d: 1, F.conv_transpose1d: 1,
          F.conv_transpose2d: 1, F.conv_transpose3d: 1, F.embedding: 1, F.embedding_bag: 1,
          F.multi_head_attention_forward: 3, torch.lstm: 2, torch.gru: 2, torch.rnn_tanh: 2, torch.rnn_relu: 2,
          torch.lstm_cell: 2, torch.gru_cell: 2, torch.rnn_tanh_cell: 2, torch.rnn_relu_cell: 2}
SCALINGS = {"mul", "multiply", "rmul", "imul", "div", "divide", "true_divide", "truediv", "itruediv"}


@dataclass(frozen=True, eq=False)
class Operand:
    """A weight in use: its ``name`` among the parameters, the ``parts`` (parameters) it is made of, and its value."""

    name: str
    parts: frozenset[str]
    value: Tensor


@dataclass(frozen=True)
class Pass:
    """What a forward pass multiplies by: the weights that are computed, in the order of their use, the names of the
    ``plain`` parameters that are factors as they are (or views of them), and of those that entries of activations are
    ``scaled`` by something made of."""

    computed: list[Operand]
    plain: frozenset[str]
    scaled: frozenset[str]


def operands(module: nn.Module, example: Tensor) -> Pass:
    """The forward pass of ``module`` on ``example``.

    The name of a computed weight is that of the parameter it is made of, where only one of its parts has two dimensions
    or more, or only one is called ``weight``; else ``weight`` of the module that holds the parts; with ``#2`` behind it
    where that name is taken. Parts that the pass also multiplies by as they are, are not among ``parts``.
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
        if name in params and params[name].ndim == 2 == value.squeeze().ndim:  # a batch of one, say
            value = value.squeeze()
        found.append(Operand(name, parts & parted, value))
    unused = {name: value for name, value in params.items() if name not in watch.used}
    for value in watch.frozen:
        instead = [name for name, other in unused.items() if other.shape == value.shape]
        if len(instead) == 1:
            found.append(Operand(instead[0], frozenset(instead), value))
            del unused[instead[0]]
    return Pass(found, frozenset(watch.direct | watch.perhaps), frozenset(watch.scaled))


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
        self._flowing = {id(example): example}  # tensors are kept, so that their ids stay theirs
        self._storages = {_storage(value): name for name, value in params.items() if value.numel()}
        self._latest = {_storage(value): value for value in (example, *buffers, *params.values())}
        self.computed: list[tuple[frozenset[str], Tensor]] = []
        self.direct: set[str] = set()
        self.perhaps: set[str] = set()  # multiplied with what is neither made of parameters nor known to flow
        self.scaled: set[str] = set()
        self.used: set[str] = set()
        self.frozen: list[Tensor] = []  # made of buffers alone

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = list(tensors((args, kwargs)))
        for value in given:
            self._recall(value)
        # A layer applied to learned tokens, say, gives activations: they flow, as the input's do.
        inputs = {id(value) for value in tensors(args[:LAYERS.get(func, 0)])}
        weights = [value for value in given if id(value) in self._made and id(value) not in inputs]
        flowing = [value for value in given if id(value) in self._flowing or id(value) in inputs]
        if any(value.ndim >= 2 for value in weights):
            with Factors(weights, flowing) as factors:
                result = func(*args, **(kwargs or {}))
            for value in weights:
                if value.ndim >= 2 and id(value) in factors.found:
                    self._note(value, bool(flowing) or func in LAYERS)
        else:
            result = func(*args, **(kwargs or {}))
        if flowing and getattr(func, "__name__", "").strip("_") in SCALINGS:
            self.scaled |= {name for value in weights if _storage(value) not in self._storages
                            for name in self._made[id(value)][1]}
        made = [self._made[id(value)][1] for value in given if id(value) in self._made]
        parts = frozenset[str]().union(*made)
        self.used |= parts
        changed = list(tensors(args[:1])) if _in_place(func) else []
        for value in (*tensors(result), *tensors((kwargs or {}).get("out")), *changed):
            if flowing or func in LAYERS:
                self._flowing[id(value)] = value
                self._made.pop(id(value), None)
            elif made:
                self._made[id(value)] = value, parts
            else:
                continue
            if _storage(value) not in self._storages:
                self._latest[_storage(value)] = value
        return result

    def _recall(self, value: Tensor) -> None:
        """A view that no function has made, or of what was written in place, is made of what its storage is."""
        if id(value) in self._made or id(value) in self._flowing or not _storage(value):
            return
        if (other := self._latest.get(_storage(value))) is not None:
            if id(other) in self._flowing:
                self._flowing[id(value)] = value
            elif id(other) in self._made:
                self._made[id(value)] = value, self._made[id(other)][1]

    def _note(self, value: Tensor, flows: bool) -> None:
        """A factor of what came of the input, or of what may have where ``flows`` is False."""
        parts, name = self._made[id(value)][1], self._storages.get(_storage(value))
        if name is not None:
            (self.direct if flows else self.perhaps).add(name)
        elif flows and not parts:
            self.frozen.append(value)
        elif flows:
            self.computed.append((parts, value.to_dense() if value.layout != torch.strided else value.clone()))


def _storage(value: Tensor) -> int:
    """The address of a tensor's memory; 0 where it has none of its own (it is sparse, or stands for a batch)."""
    try:
        return value.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def _in_place(func: Any) -> bool:
    """Whether a function changes its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
