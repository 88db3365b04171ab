"""Low-rank adapters (LoRA) in files: W + s B A where the base weight W is in the file too, else s B A alone.

The scaling s is ``scaling`` beside the matrices, or alpha / rank, with alpha from ``alpha`` beside them or
``lora_alpha`` of the adapter_config.json beside the file, or its ``alpha_pattern`` for this layer (alpha / sqrt(rank)
where it says ``use_rslora``). DoRA and others that do more than add B A have no numbers but a reason. Where the scaling
is not in the file, that goes for a weight with a base too, and an adapter alone is B A, which says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from trials.stored import Made, Stored, real, troubled

FIRST = re.compile(r"(?:(.*?)\.)?(lora_A|lora_a|lora_down|lora\.down|lora\.A|A|lora_linear_layer\.down|"
                   r"lora_embedding_A)((?:\.\w+)?)", re.DOTALL)
SECOND = {"lora_A": "lora_B", "lora_a": "lora_b", "lora_down": "lora_up", "lora.down": "lora.up",
          "lora.A": "lora.B", "A": "B",
          "lora_linear_layer.down": "lora_linear_layer.up", "lora_embedding_A": "lora_embedding_B"}
BASES = ("weight", "base_layer.weight", "base.weight", "linear.weight", "original_module.weight")
MORE = re.compile(r"(?:(.*)\.)?((?:lora_|dora_|magnitude|ranknum)[^.]*)(\..*)?", re.DOTALL)  # not LoRA alone, as DoRA's
PLAIN = re.compile(r"[\w.^\\-]+")  # a pattern that cannot take for ever


def adapters(stored: Mapping[str, Stored], config: Mapping[str, object]) -> Iterator[Made]:
    """The weights of all layers with an adapter; ``config`` is adapter_config.json."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}  # several adapters may be of one layer
    for name in stored:
        if match := FIRST.fullmatch(name.removesuffix(".weight")):
            layer, first, which = match.groups()
            start = f"{layer}." if layer else ""
            second = f"{start}{SECOND[first]}{which}" + (".weight" if name.endswith(".weight") else "")
            if second in stored and (first != "A" or _fits(start, name, second, stored)):
                found.setdefault((start, first), []).append((name, second))
    more: dict[str, list[str]] = {}
    for name in stored:
        if (match := MORE.fullmatch(name)) and not name.endswith("bias"):
            more.setdefault(f"{match[1].removesuffix('.lora')}." if match[1] else "", []).append(name)
    for (start, first), pairs in found.items():
        yield _adapter(start, "embedding" in first, pairs, more.get(start, []), stored, config)


def _fits(start: str, a: str, b: str, stored: Mapping[str, Stored]) -> bool:
    """Whether B A has the shape of a base: without that, names of one letter say little."""
    base = next((stored[start + base].shape for base in BASES if start + base in stored), ())
    low, high = stored[a].shape, stored[b].shape
    return len(base) >= 2 and len(low) == len(high) == len(base) and high[1] == low[0] and (
        (high[0], *low[1:]) in (base, base[::-1]))


def _adapter(start: str, turned: bool, pairs: list[tuple[str, str]], beside: list[str],
             stored: Mapping[str, Stored], config: Mapping[str, object]) -> Made:
    names = [name for pair in pairs for name in pair]
    its_base = next((start + base for base in BASES if start + base in stored and start + base not in names), None)
    alpha = next((start + word for word in ("alpha", "lora_alpha", "scaling") if start + word in stored), "")
    parts = [*([its_base] if its_base else []), *names, *([alpha] if alpha else [])]
    more = [name for name in beside if name not in parts]
    a, b = pairs[0]
    low, high, base = stored[a], stored[b], stored[its_base] if its_base else None
    name, whole = f"{start}weight", base or low
    if more or len(pairs) > 1:
        what = "beside more than LoRA" if more else "with several adapters"
        return troubled(name, [*parts, *more], whole, what)
    if len(low.shape) < 2 or len(high.shape) != len(low.shape) or not low.dtype or not high.dtype or (
            high.shape[1] != low.shape[0] or any(size != 1 for size in high.shape[2:])):
        shapes = f"{list(low.shape)} and {list(high.shape)}"
        return troubled(name, parts, whole, f"an adapter of shapes {shapes}, which make no product")
    shape, turned = (high.shape[0], *low.shape[1:]), turned or config.get("fan_in_fan_out") is True
    if base is not None and base.shape != shape and base.shape == shape[::-1]:
        turned = True
    scale, said = _scaling(stored.get(alpha), low.shape[0], config, start[:-1])
    if alpha.endswith("scaling") and scale is not None:
        scale, said = scale * low.shape[0], "scaling"
    if turned:
        shape = shape[::-1]
    trouble = said if scale is None and said else "" if base is None else base.trouble or (
        f"of shape {list(base.shape)}, its adapter's is {list(shape)}" if base.shape != shape else
        "with an adapter whose scaling is not in the file" if scale is None else "")
    if trouble or (base is not None and not base.dtype):
        return troubled(name, parts, whole, trouble or "of a type that cannot be read")

    def load() -> Tensor:
        product = real(high.load()).flatten(1) @ real(low.load()).flatten(1) * (1.0 if scale is None else scale)
        product = (product.mT if turned else product).reshape(shape)
        return product if base is None else real(base.load()) + product
    made = "B A of an adapter, without its scaling, which is not in the file" if scale is None else (
        f"{'' if base is None else 'W + '}s B A of an adapter, s = {scale:g} ({said})")
    return Made(name, tuple(parts), replace(whole, shape=shape, load=load, made=made))


def _scaling(alpha: Stored | None, rank: int, config: Mapping[str, object], layer: str) -> tuple[float | None, str]:
    """(s, what it is made of, or why it is not known). The rank is that of the matrices, whatever ``rank_pattern`` says
    of it."""
    value: float | None = None
    if alpha is not None:
        value = float(alpha.load()) if alpha.dtype and alpha.shape in ((), (1,)) else None
    else:
        said, doubt = _alpha(config, layer)
        if doubt:
            return None, doubt
        value = float(said) if isinstance(said, (int, float)) else None
    if value is None or not rank:
        return None, ""
    root = alpha is None and config.get("use_rslora") is True
    return value / (rank**0.5 if root else rank), f"alpha {value:g}, rank {rank}{', rsLoRA' if root else ''}"


def _alpha(config: Mapping[str, object], layer: str) -> tuple[object, str]:
    """(lora_alpha of a layer, why it is not known): that of the first key of ``alpha_pattern`` that the end of the
    layer's name matches, as PEFT has it."""
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        return None, "with an adapter whose alpha_pattern is no list of layers"
    for key, value in pattern.items():
        if not PLAIN.fullmatch(key):
            return None, f"with an adapter whose alpha_pattern {key!r:.60} is not read"
        try:
            if re.fullmatch(rf"(?:.*\.)?(?:{key})", layer.removeprefix("base_model.model."), re.DOTALL):
                return value, ""
        except re.error:
            return None, f"with an adapter whose alpha_pattern {key!r:.60} is no pattern"
    return config.get("lora_alpha"), ""
