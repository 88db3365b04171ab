"""Reparametrized weights in files, from their parts.

- weight_norm: g v / |v|, ``weight_g`` and ``weight_v`` or ``parametrizations.weight.original0`` and ``original1``;
- spectral_norm: W / (u^T W v) with the u and v that are stored, as the model does in evaluation mode;
- pruning, also of the parts of these: ``weight_orig`` * ``weight_mask``, and a ``weight`` beside a ``weight_mask`` or
  ``mask`` of its shape that is of zeros and ones.

Where the file does not say how a weight is made of its parts (the map of ``orthogonal``, a parametrization of one's
own), it is a layer without numbers but with a reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trials.stored import Made, Stored, is_real, real, split, troubled

PARAMETRIZED = re.compile(r"(?:(.*)\.)?parametrizations\.(\w+)\.(.+)", re.DOTALL)


def reparametrized(stored: Mapping[str, Stored]) -> Iterator[Made]:
    """weight_norm, spectral_norm and pruning, of both of PyTorch's forms."""
    groups: dict[str, dict[str, str]] = {}
    for name in stored:
        if match := PARAMETRIZED.fullmatch(name):
            owner, tensor, rest = match.groups()
            groups.setdefault(f"{owner}.{tensor}" if owner else tensor, {})[rest] = name
        elif name.endswith("_orig"):
            base = name.removesuffix("_orig")
            its = {word: f"{base}_{word}" for word in ("mask", "u", "v") if f"{base}_{word}" in stored}
            yield _old(base, name, its, stored)
        elif (base := _masked(name, stored)):
            yield replace(_old(base, base, {"mask": name}, stored), parts=(base, name))
        elif name.endswith("_v") and f"{name[:-2]}_g" in stored:
            g = f"{name[:-2]}_g"
            norm = _weight_norm(name[:-2], g, name, stored)
            if split(name)[1].startswith("weight") or not norm.stored.trouble:
                yield norm
    for base, its in groups.items():
        main = next((its[word] for word in ("original", "original1", "original0") if word in its), None)
        if main is None or len(stored[main].shape) < 2:
            continue
        if set(its) == {"original0", "original1"}:
            norm = _weight_norm(base, its["original0"], main, stored)
            yield replace(norm, parts=tuple(its.values()))
        elif set(its) == {"original", "0._u", "0._v"}:
            yield _spectral_norm(base, list(its.values()), main, its["0._u"], its["0._v"], stored)
        else:
            what = "orthogonal: its map" if set(its) == {"original", "0.base"} else "a parametrization that"
            yield troubled(base, its.values(), stored[main], f"made by {what} is not in the file")


def _masked(name: str, stored: Mapping[str, Stored]) -> str:
    """The weight that a mask is of; "" where this is none."""
    owner, leaf = split(name)
    base = name.removesuffix("_mask") if leaf.endswith("_mask") else f"{owner}.weight" if owner else "weight"
    if not (leaf == "mask" or leaf.endswith("_mask")) or base not in stored or f"{base}_orig" in stored:
        return ""
    mask, weight = stored[name], stored[base]
    numbers = (is_real(weight) or weight.made != "") and not weight.trouble
    if not numbers or len(weight.shape) < 2 or mask.shape != weight.shape:
        return ""
    if mask.dtype is None or mask.trouble or mask.dtype.is_complex:
        return ""
    return base if mask.dtype == torch.bool or bool(((value := mask.load()) == value.bool()).all()) else ""


def _old(base: str, name: str, its: Mapping[str, str], stored: Mapping[str, Stored]) -> Made:
    parts, orig = [name, *its.values()], stored[name]
    if orig.trouble:
        return troubled(base, parts, orig, orig.trouble)
    numbers, mask = is_real(orig) or orig.made != "", stored.get(its.get("mask", ""))
    if set(its) == {"mask"} and numbers and mask is not None and mask.shape == orig.shape and mask.dtype:
        def load() -> Tensor:
            return real(orig.load()) * real(mask.load())
        what = "orig" if base != name else "weight"
        return Made(base, tuple(parts), replace(orig, load=load, made=_after(orig, f"pruned: {what} * mask")))
    if set(its) == {"u", "v"}:
        return _spectral_norm(base, parts, name, its["u"], its["v"], stored)
    return troubled(base, parts, orig, "reparametrized in a way that is not in the file")


def _weight_norm(base: str, g: str, v: str, stored: Mapping[str, Stored]) -> Made:
    """g v / |v|, the norm over all dimensions in which g has one entry."""
    gain, direction = stored[g], stored[v]
    if trouble := direction.trouble or gain.trouble:
        return troubled(base, (v, g), direction, trouble)
    kept = [place for place, (a, b) in enumerate(zip(gain.shape, direction.shape, strict=False)) if a == b and b > 1]
    alike = len(gain.shape) == len(direction.shape) and max(direction.shape, default=0) > 1 and len(kept) <= 1 and all(
        size == 1 for place, size in enumerate(gain.shape) if place not in kept)
    # Of a matrix with more than a row and a column, one norm alone is stored without dimensions.
    alike &= bool(kept) or sum(size > 1 for size in direction.shape) == 1
    if not (alike or gain.shape == ()) or not is_real(gain) or not is_real(direction):
        shapes = f"of shapes {list(gain.shape)} and {list(direction.shape)}"
        return troubled(base, (v, g), direction, f"{shapes}, which are no weight_norm's")

    def load() -> Tensor:
        value = real(direction.load())
        over = [place for place in range(value.ndim) if place not in kept]
        return real(gain.load()) * value / value.square().sum(over, keepdim=True).sqrt()
    return Made(base, (v, g), replace(direction, load=load, made=_after(direction, "weight_norm: g v / |v|")))


def _after(entry: Stored, made: str) -> str:
    """What is made of something that is made itself."""
    return f"{entry.made}; {made}" if entry.made else made


def _spectral_norm(base: str, parts: Sequence[str], name: str, u: str, v: str, stored: Mapping[str, Stored]) -> Made:
    """W / (u^T W v), W with the dimension of u's size as rows."""
    entry, size = stored[name], math.prod(stored[name].shape)
    sides = [place for place, n in enumerate(entry.shape)
             if stored[u].shape == (n,) and n and stored[v].shape == (size // n,)]
    if len(sides) > 1 and not entry.trouble and all(map(is_real, (entry, stored[u], stored[v]))):
        sides = _iterated(real(entry.load()), real(stored[u].load()), real(stored[v].load()), sides) or sides
    if entry.trouble:
        return troubled(base, parts, entry, entry.trouble)
    if len(sides) != 1 or not all(map(is_real, (entry, stored[u], stored[v]))):
        return troubled(base, parts, entry, "spectral_norm: which dimension it is of is not in the file" if sides else
                        "spectral_norm: u and v do not fit")

    def load() -> Tensor:
        value = real(entry.load())
        rows = value.movedim(sides[0], 0).flatten(1)
        return value / (real(stored[u].load()) @ (rows @ real(stored[v].load())))
    return Made(base, tuple(parts), replace(entry, load=load, made=_after(entry, "spectral_norm: W / (u^T W v)")))


def _iterated(weight: Tensor, u: Tensor, v: Tensor, sides: Sequence[int]) -> list[int]:
    """Which of the dimensions u and v are of: they are of one whose W v points along u, as power iteration leaves them
    even if W has moved a little since. Those of a symmetric matrix agree."""
    rows = {side: weight.movedim(side, 0).flatten(1) for side in sides}
    first, *others = (rows[side] @ v for side in sides)
    if all(torch.allclose(first, other, rtol=1e-6) for other in others):
        return [sides[0]]
    return [side for side in sides if float(u @ (along := rows[side] @ v)) > 0.9 * float(u.norm() * along.norm())]
