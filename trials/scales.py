"""The scale of a quantized weight, where its name is none of the usual ones beside the weight's:
``fc.weight.scale``, ``fc_scale``, ``fc.dequant``, ``fc.weight_s``, or a dictionary ``scales`` of the weights' names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

FACTORS = ("scale", "scales", "scale_inv", "dequant", "dequant_scale", "s")  # what the codes are multiplied with
DOUBTS = ("amax", "absmax", "inv_scale", "zero_point", "zero_points", "zeros", "zp", "shift", "offset", "quant_scale")
NAMED = re.compile(rf"(.+?)[._:]({'|'.join((*DOUBTS, *FACTORS))})", re.DOTALL)
APART = re.compile("(weight_)?scales?(_inv)?")
APART_DOUBTS = re.compile("(weight_)?(zero_points?|zeros|zps?|offsets?|shifts?)")
ZEROS = re.compile("(.*_)?(zero_points?|zeros?|zps?|offsets?|shifts?)", re.DOTALL)  # last words of no weight's name


class Scales:
    """``scales.of(name)``: (the scales of a weight, what else may change its numbers), by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._of: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        for name in names:
            if match := NAMED.fullmatch(name):
                owner, word = match.groups()
                self._of[owner].append((name, word in FACTORS))
            words = name.split(".")
            for place, word in enumerate(words[:-1]):
                if (factor := APART.fullmatch(word) is not None) or APART_DOUBTS.fullmatch(word):
                    self._of[".".join(words[:place] + words[place + 1:])].append((name, factor))

    def of(self, name: str) -> tuple[list[str], list[str]]:
        """Of the weight, or of the layer that has it; a dictionary beside that of weights leaves out its name."""
        owner, _, leaf = name.rpartition(".")
        keys = [name, name.partition(".")[2], *([owner, owner.partition(".")[2]] if leaf == "weight" else [])]
        found = dict(entry for key in dict.fromkeys(keys) if key for entry in self._of.get(key, []) if entry[0] != name)
        return [one for one, factor in found.items() if factor], [one for one, factor in found.items() if not factor]
