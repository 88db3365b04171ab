"""Quantized weights in files: short numbers beside the scales that they are to be multiplied with.

The weight that a model uses is ``stored * scale``, also where the scale is called ``scale_inv`` (DeepSeek's word for
the inverse of what was multiplied with in quantizing). Known are

- float8 and int8 weights ``W`` with ``W_scale`` or ``W_scale_inv`` (``weight_scale`` ...), and with a ``W_zero_point``
  or ``W_zp`` (stored - zero point) * scale; ``scale_weight`` beside ``weight``; Quanto's ``W._data`` and ``W._scale``;
- those whose one scale has another name (trials/scales.py);
- int8 weights with ``SCB`` (LLM.int8 of bitsandbytes): stored * SCB / 127, SCB one for each row.

A scale may be one number, one for each row or column, or one for each block of entries: the blocks divide the weight
evenly, or are 128 long with a shorter last one, or as long as ``weight_block_size`` in the model's config.json says.
Where that leaves a doubt, or a tensor lies beside the weight whose meaning is not known (trials/beside.py), the weight
has no numbers, but a reason. A float8 weight without any scale is as stored, which
it says. Weights that are packed several to a number (GPTQ, AWQ, MXFP4, bitsandbytes' 4 bits) are not unpacked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trials.beside import ZERO, Beside
from trials.scales import ZEROS, Scales
from trials.stored import Made, Stored, is_real, real, split, troubled

SHORT = {dtype for dtype in (getattr(torch, name, None) for name in (
    "int8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")) if dtype is not None}
WORDS = ("_scale", "_scale_inv")
OF_WEIGHT = ("scale_weight", "SCB", "weight_format")
PACKED = {"qweight": "GPTQ or AWQ", "weight_packed": "compressed-tensors", "W_q": "HQQ", "q_weight": "EXL2",
          "codes": "AQLM"}
COMPANIONS = re.compile("qzeros|scales?|g_idx|zero|codebooks|weight_(scale|shape|zero_point|g_idx|global_scale).*|q_.*")
OF_OTHERS = re.compile("(input|output|act|activation|[qkv]|kv|attn|prob)_?scale.*")  # not of the weight
SCALE = re.compile("scale|absmax|SCB", re.IGNORECASE)
OWN = re.compile("(.+?)_(scale|zero_point|absmax).*", re.DOTALL)
USUAL_BLOCK = 128


def quantized(stored: Mapping[str, Stored], block: Sequence[int] | None = None) -> Iterator[Made]:
    """The weights that are quantized; ``block`` is the size of blocks, where the model's config.json says it."""
    scales, beside, owners = Scales(stored), Beside(stored), dict[str, dict[str, str]]()
    for name in stored:
        owner, leaf = split(name)
        owners.setdefault(owner, {})[leaf] = name
    for owner, leaves in owners.items():
        own: dict[str, list[str]] = {"weight": [one for one in OF_WEIGHT if one in leaves]}
        for one in leaves:
            if (match := OWN.fullmatch(one)) and match[1] in leaves:
                own.setdefault(match[1], []).append(one)
        known = {one for its in own.values() for one in its}
        loose = [one for one in leaves if one not in known and SCALE.search(one) and not OF_OTHERS.fullmatch(one)]
        for leaf, name in leaves.items():
            entry = stored[name]
            below = list(owners.get(name, {}).values())
            blocks = leaf.endswith("_blocks") and f"{leaf.removesuffix('_blocks')}_scales" in leaves
            if not is_real(entry) and (leaf in PACKED or blocks):
                yield _packed(owner, leaf, leaves, entry)
            elif entry.dtype in SHORT and owner and leaf == "_data" and "_scale" in leaves:
                parts = [name, *(leaves[one] for one in ("_scale", "_shift") if one in leaves)]
                yield _scaled(owner, stored, parts, "_scale", 1.0, block) if "_shift" not in leaves else troubled(
                    owner, parts, entry, "quantized with a shift, whose convention is not known")
            elif any(".absmax" in other or ".quant_" in other for other in below):
                yield troubled(name, [name, *below], entry, "packed (bitsandbytes)", shape=(0, 0))
            elif leaf == "weight" and {"scales", "biases"} <= {*leaves}:
                yield troubled(name, [name, leaves["scales"], leaves["biases"]], entry, "packed (MLX)", shape=(0, 0))
            elif not SCALE.search(leaf) and not ZEROS.fullmatch(leaf):
                usual = list(_with_scales(leaf, leaves, own.get(leaf, []), loose, stored, block, scales, beside))
                yield from usual or _with_others(name, scales, beside, stored, block)


def _packed(owner: str, leaf: str, leaves: Mapping[str, str], entry: Stored) -> Made:
    if leaf.endswith("_blocks"):
        base = leaf.removesuffix("_blocks")
        parts, kind = [leaves[one] for one in leaves if one in (leaf, f"{base}_scales")], "MXFP4"
    else:
        base, kind = "weight", PACKED[leaf]
        parts = [leaves[one] for one in leaves if one == leaf or COMPANIONS.fullmatch(one)]
    return troubled(f"{owner}.{base}" if owner else base, parts, entry, f"packed ({kind})", shape=(0, 0))


def _with_scales(leaf: str, leaves: Mapping[str, str], own: list[str], loose: list[str],
                 stored: Mapping[str, Stored], block: Sequence[int] | None, scales: Scales,
                 beside: Beside) -> Iterator[Made]:
    """``own`` are the companions named after the weight, ``loose`` the scales beside it that are named after none."""
    name = leaves[leaf]
    entry, parts = stored[name], [name, *(leaves[one] for one in own)]
    if len(entry.shape) < 2:
        return
    if entry.dtype not in SHORT:
        if any(SCALE.search(one) for one in own if one.startswith(leaf)):
            what = entry.trouble or f"of type {_words(entry)}"
            yield troubled(name, parts, entry, f"{what} beside {own[0]}: is it to be scaled?")
        return
    known = [one for one in own if one in (*(leaf + word for word in WORDS), "scale_weight", "SCB")]
    zeros = [leaves[leaf + word] for word in ZERO if leaf + word in leaves]
    parts += [zero for zero in zeros if zero not in parts]
    strange = [*beside.of(name, parts), *(one for one in scales.of(name)[1] if one not in parts)]
    if len(zeros) > 1:
        strange += zeros
    if len(known) > 1 or len([one for one in own if "scale" in one]) > 1:
        yield troubled(name, parts, entry, f"several scales, {' and '.join(own)}, whose convention is not known")
    elif known and strange:
        yield _strange(name, parts, strange, entry)
    elif known:
        yield _scaled(name, stored, parts, known[0], 127.0 if known[0] == "SCB" else 1.0, block)
    elif own or loose:
        yield troubled(name, [*parts, *(leaves[one] for one in loose)], entry,
                       f"beside {(own + loose)[0]}, a scale whose convention is not known")


def _strange(name: str, parts: Sequence[str], strange: Sequence[str], entry: Stored) -> Made:
    its = [one for one in dict.fromkeys(strange) if ZEROS.fullmatch(split(one)[1])]  # no layers of their own
    return troubled(name, [*parts, *its], entry, f"beside {strange[0]}, whose meaning is not known")


def _with_others(name: str, scales: Scales, beside: Beside, stored: Mapping[str, Stored],
                 block: Sequence[int] | None) -> Iterator[Made]:
    """Scales of other names."""
    entry = stored[name]
    if entry.dtype not in SHORT or len(entry.shape) < 2 or entry.trouble:
        return
    factors, doubts = scales.of(name)
    strange = beside.of(name, [*factors, *doubts])
    if strange and (factors or doubts or is_real(entry)):
        yield _strange(name, [name, *factors, *doubts], strange, entry)
    elif len(factors) == 1 and not doubts:
        yield _scaled(name, stored, [name, *factors], factors[0], 1.0, block)
    elif factors or doubts:
        yield troubled(name, [name, *factors, *doubts], entry,
                       f"beside {' and '.join(factors + doubts)}, whose convention is not known")
    elif is_real(entry):
        yield Made(name, (name,), replace(entry, made=f"as stored ({_words(entry)}): no scale of it is in the file"))


def _words(entry: Stored) -> str:
    return str(entry.dtype).removeprefix("torch.")


def _scaled(name: str, stored: Mapping[str, Stored], parts: list[str], word: str, divisor: float,
            block: Sequence[int] | None) -> Made:
    weight = stored[parts[0]]
    scale_name = next(part for part in parts[1:] if word in (part, split(part)[1]))
    scale = stored[scale_name]
    zeros = [part for part in parts[1:] if part.endswith(ZERO)]
    if not is_real(scale):
        return troubled(name, parts, weight, f"{word} holds no real numbers ({_words(scale)})")
    blocks = block_size(weight.shape, scale.shape, block)
    if isinstance(blocks, str):
        return troubled(name, parts, weight, f"{word} {blocks}")
    if zeros and (stored[zeros[0]].dtype is None or stored[zeros[0]].shape != scale.shape):
        return troubled(name, parts, weight, "its zero points are not one for each scale")

    def load() -> Tensor:
        value = real(weight.load())
        if zeros:
            value = value - spread(real(stored[zeros[0]].load()), value.shape, blocks)
        return value * spread(real(scale.load()), value.shape, blocks) / divisor
    of = "one number" if math.prod(blocks) == math.prod(weight.shape) else f"blocks of {' x '.join(map(str, blocks))}"
    made = f"stored * {word}{'' if divisor == 1.0 else f' / {divisor:g}'}, {of}"
    return Made(name, tuple(parts), Stored(weight.shape, weight.dtype, load, made=made))


def block_size(weight: Sequence[int], scale: Sequence[int],
               block: Sequence[int] | None = None) -> tuple[int, ...] | str:
    """How many entries a scale stands for, along each dimension of the weight; or, in words, why that is not known."""
    shapes = f"of shape {list(scale)} for a weight of shape {list(weight)}"
    if math.prod(scale) == 1:
        return tuple(weight)
    while len(scale) > len(weight) and scale[-1] == 1:
        scale = scale[:-1]
    if len(scale) == 1:
        sides = [place for place, size in enumerate(weight) if size == scale[0]]
        if len(sides) > 1:
            return f"{shapes} may be one for each row or each column"
        if not sides:
            return f"{shapes} does not fit"
        scale = [scale[0] if place == sides[0] else 1 for place in range(len(weight))]
    elif 1 < len(scale) < len(weight) and all(size == 1 for size in scale[1:]):
        scale = [*scale, *[1] * (len(weight) - len(scale))]
    if len(scale) != len(weight):
        return f"{shapes} does not fit"
    found = []
    for place, (size, count) in enumerate(zip(weight, scale, strict=True), -len(weight)):
        said = block[place] if block and len(block) >= -place else 0
        options = {said} if said and -(-size // said) == count else set()
        if not options and count:
            options = {size // count} if size % count == 0 else set()
            options |= {USUAL_BLOCK} if count > 1 and -(-size // USUAL_BLOCK) == count else set()
        if not options:
            return f"{shapes} does not fit"
        if len(options) > 1:
            return f"{shapes} may be of blocks of {' or '.join(map(str, sorted(options)))}"
        found.append(options.pop())
    return tuple(found)


def spread(scale: Tensor, shape: Sequence[int], blocks: Sequence[int]) -> Tensor:
    """A scale for each entry of a weight of this shape."""
    scale = scale.reshape([-(-size // length) for size, length in zip(shape, blocks, strict=True)])
    for place, (size, length) in enumerate(zip(shape, blocks, strict=True)):
        if scale.shape[place] > 1:
            scale = scale.repeat_interleave(length, place).narrow(place, 0, size)
    return scale
