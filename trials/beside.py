"""What lies beside a quantized weight in a file, and may change its numbers."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable

from trials.stored import split

ZERO = ("_zero_point", "_zero_points", "_zp")  # the code that stands for 0
# Of other tensors than the weight, of its shape and type, and what is applied later.
HARMLESS = re.compile(
    "(input|output|act|activation|[qkv]|kv|attn|prob)_?(scale|zero_point|zp|offset|amax|global_scale).*|"
    "scale_(input|output|act)|bias|(weight_)?(shape|format|mask)|mask|lora.*|dora.*|alpha|scaling|A|B|SCB")


class Beside:
    """``beside.of(name, known)``: the names of what may belong to a weight, but for those that are ``known``."""

    def __init__(self, names: Iterable[str]) -> None:
        self._below: dict[str, dict[str, str]] = {}  # owner -> word below it -> the first name with it
        self._sorted: dict[str, list[str]] = {}
        for name in names:
            words = name.split(".")
            for place, word in enumerate(words):
                self._below.setdefault(".".join(words[:place]), {}).setdefault(word, name)

    def of(self, name: str, known: Iterable[str]) -> list[str]:
        """Of the weight's own name and a further word; of a layer's ``weight``, all tensors of the layer."""
        owner, leaf = split(name)
        there, aside = self._below[owner], {name, *known}
        found = [*self._below.get(name, {}).values()]
        for word in self._starting(owner, leaf):
            if leaf == "weight" or not word.endswith("_bias"):
                found += [there[word]] if not self._of_another(owner, leaf, word) else []
        if leaf == "weight" and owner:
            found += [other for word, other in there.items() if split(other)[0] == owner and not word.startswith(leaf)
                      and not word.endswith("_bias") and not self._of_another(owner, leaf, word)]
        return [other for other in found if other not in aside]

    def _starting(self, owner: str, leaf: str) -> list[str]:
        """The words below an owner that are a leaf's and a further word."""
        words = self._sorted.get(owner) or self._sorted.setdefault(owner, sorted(self._below[owner]))
        return [word for mark in "_:" for word in words[bisect_left(words, leaf + mark):
                                                        bisect_left(words, leaf + chr(ord(mark) + 1))]]

    def _of_another(self, owner: str, leaf: str, word: str) -> bool:
        """Whether a word is harmless, or another weight with scales of its own, or named after such a one."""
        there, parts = self._below[owner], word.split("_")
        starts = {"_".join(parts[:count]) for count in range(1, len(parts) + 1)}
        return HARMLESS.fullmatch(word) is not None or any(
            start in there and not f"{leaf}_".startswith(f"{start}_") and f"{start}{end}" in there
            for start in starts for end in ("_scale", "_scale_inv", "_scales"))
