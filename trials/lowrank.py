"""Low-rank adapters (LoRA) in a model: a weight W in use as W + s B A, the sum of two paths from one input.

- A module that is an affine map and holds W, A and B alone: its matrix is what it makes of the unit vectors, so that
  scaling, merging and norms are those of its own code.
- Any other place of W, A and B, such as a convolution or an embedding: those for which the model's output is that of
  W + s B A without an adapter, with the s that its own code has.

W may be a buffer. Layers one after the other (B A W x), or a product without a W beside it, are no adapter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trials.computed import Computed, below, join

Shape = tuple[int, ...]  # of a weight as a matrix, (rows, columns)
_UNIT_VECTORS = 1024  # at a time
_STEP = 1e-4  # of central differences
_TRIPLES = 64  # that are tried at most: each costs six forward passes of one example


def adapters(module: nn.Module, example: Tensor | None) -> list[Computed]:
    """The weights with an adapter."""
    found = _affine_modules(module)
    if example is None:
        return found
    tried = 0
    shapes = {name: tuple(value.flatten(1).shape) for name, value in _tensors(module) if value.ndim >= 2}
    called = {id(value): name for name, value in _tensors(module)}  # one that is tied has one name
    for child in reversed(list(module.modules())):  # the innermost first
        names = [called[id(value)] for _, value in _tensors(child) if value.ndim >= 2 and value.is_floating_point()]
        for base, a, b in _triples(module, names, shapes):
            if tried >= _TRIPLES:
                return found
            if any({base, a, b} & each.parts for each in found):
                continue
            tried += 1
            for turned in _products(shapes[base], shapes[a], shapes[b]):
                def read(module: nn.Module, base: str = base, a: str = a, b: str = b,
                         turned: tuple[bool, bool] = turned) -> Tensor:
                    own = dict(_tensors(module))
                    change = _product(own[base], own[a], own[b], turned)
                    return own[base] + _scaling(module, example, base, a, b, turned)[0] * change
                with suppress(Exception):  # a model that does not run in float64, say
                    if _scaling(module, example, base, a, b, turned)[1]:
                        found.append(Computed(base, frozenset([base, a, b]), read))
                        break
    return found


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _triples(module: nn.Module, names: list[str], shapes: Mapping[str, Shape]) -> Iterator[tuple[str, str, str]]:
    """W, A and B: B A has W's shape, in this order or the other, and a lower rank."""
    trained = {name for name, _ in module.named_parameters()}
    for base in names:
        rows, columns = shapes[base]
        small = [name for name in names if name in trained and math.prod(shapes[name]) < rows * columns
                 and {rows, columns} & {*shapes[name]}]
        for a, b in permutations(small, 2):
            if _products(shapes[base], shapes[a], shapes[b]):
                yield base, a, b


def _products(base: Shape, a: Shape, b: Shape) -> list[tuple[bool, bool]]:
    """Which of B and A may be turned, so that B A is a change of W."""
    found = []
    for turned in ((False, False), (False, True), (True, False), (True, True)):
        high, low = (shape[::-1] if turn else shape for shape, turn in zip((b, a), turned, strict=True))
        if (high[0], low[1]) == base and high[1] == low[0] < min(base):
            found.append(turned)
    return found


def _product(base: Tensor, a: Tensor, b: Tensor, turned: tuple[bool, bool]) -> Tensor:
    high, low = (value.flatten(1).mT if turn else value.flatten(1)
                 for value, turn in zip((b, a), turned, strict=True))
    return (high @ low).reshape(base.shape)


@torch.no_grad()
def _scaling(module: nn.Module, example: Tensor, base: str, a: str, b: str,
             turned: tuple[bool, bool]) -> tuple[float, bool]:
    """(s, whether the output is that of W + s B A alone): with A and B drawn, as B usually starts from zero."""
    state = _wide(module)
    x = example.double() if example.is_floating_point() else example
    for name, seed in ((a, 0), (b, 1)):
        drawn = torch.randn(state[name].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        state[name] = 0.1 * drawn.to(state[name].device)
    change = _product(state[base], state[a], state[b], turned)

    def merged(factor: float) -> Tensor:
        none = {name: torch.zeros_like(state[name]) for name in (a, b)}
        return _call(module, {**state, **none, base: state[base] + factor * change}, x)

    def apart(factor: float) -> Tensor:
        return _call(module, {**state, a: factor * state[a]}, x)
    along = merged(_STEP) - merged(-_STEP)
    s = float((along * (apart(_STEP) - apart(-_STEP))).sum() / along.square().sum())
    same = torch.allclose(apart(1.0), merged(s), rtol=1e-5, atol=1e-8) and abs(s) > 1e-6
    return s, same and not torch.allclose(merged(s), merged(0.0), rtol=1e-5, atol=1e-8)


def _affine_modules(module: nn.Module) -> list[Computed]:
    """The innermost modules that are affine maps with an adapter."""
    found: list[Computed] = []
    for layer, child in reversed(list(module.named_modules())):
        matrices = {name: value for name, value in _tensors(child) if value.ndim >= 2 and value.is_floating_point()}
        inputs = _adapter_inputs([value.shape for value in matrices.values()])
        parts = below(module, join(layer, "")) | {join(layer, name) for name in matrices} if inputs else frozenset()
        if not any(parts & other.parts for other in found):
            for size in inputs:
                def read(module: nn.Module, layer: str = layer, size: int = size) -> Tensor:
                    return _affine(module.get_submodule(layer), size)[0]
                with suppress(Exception):  # no map of vectors of this size
                    matrix, offset = _affine(child, size)
                    x = torch.randn(1, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
                    x = x.to(matrix.device)
                    if torch.allclose(_call(child, _wide(child), x), x @ matrix.double().mT + offset, rtol=1e-4,
                                      atol=1e-5) and _is_sum(child, matrices, x):
                        found.append(Computed(join(layer, "weight"), parts, read, whole=True))
                        break
    return found[::-1]


def _is_sum(child: nn.Module, matrices: Mapping[str, Tensor], x: Tensor) -> bool:
    """Whether the linear map depends on the base where the factors are zero, and on the factors where the base is."""
    base = max(matrices, key=lambda name: matrices[name].numel())

    def output(zero: bool, seed: int) -> Tensor:
        """With what is not zero drawn: the factors where ``zero`` is of the base."""
        generator, state = torch.Generator().manual_seed(seed), _wide(child)
        for name in matrices:
            drawn = torch.randn(state[name].shape, generator=generator, dtype=torch.float64).to(x.device)
            state[name] = torch.zeros_like(drawn) if (name == base) is zero else drawn
        return _call(child, state, x) - _call(child, state, torch.zeros_like(x))
    return not any(torch.allclose(output(zero, 1), output(zero, 2)) for zero in (True, False))


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
    """(W, b) of the affine map that ``child`` is; W in the precision of its parameters, b in float64. In float64, so
    that taking the offset away costs no digits."""
    like, state = next(child.parameters()), _wide(child)
    offset = _call(child, state, torch.zeros(1, size, dtype=torch.float64, device=like.device))
    units = torch.split(torch.eye(size, dtype=torch.float64, device=like.device), _UNIT_VECTORS)
    return (torch.cat([_call(child, state, some) for some in units]) - offset).mT.to(like.dtype), offset


def _wide(child: nn.Module) -> dict[str, Tensor]:
    """Its tensors, in float64."""
    return {name: value.detach().double() if value.is_floating_point() else value.clone()
            for name, value in _tensors(child)}


def _call(child: nn.Module, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Without a trace in the streams of random numbers, which all calls so begin at one place."""
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        output: Tensor = functional_call(child, dict(state), (x.clone(),))
    return output
