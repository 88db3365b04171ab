"""Why trials cannot be trained side by side, in words for people."""

from __future__ import annotations

import re

import torch

from trials.errors import describe

MEMORY = "memory runs out with two side by side"
# What torch.func.vmap says, and what it means.
_MEANINGS = (
    (r"\.item\(\)|data-dependent control flow|Boolean value of Tensor",
     "the model reads numbers into Python (if, float(), .item()), which lanes cannot do each for itself"),
    (r"random operation|randomness", "the model draws random numbers of its own; the dropout knob can be packed"),
    (r"numpy\(\)|data pointer|storage", "the model reads the memory of tensors (.numpy()), which lanes do not have"),
    (r"mutating directly with `\.data`", "the model assigns to .data of a tensor, which lanes do not have"),
    (r"in-place", "the model changes in place a tensor that is the same in all lanes"),
    (r"vmap|[Bb]atching rule", "the model has an operation that torch.func.vmap cannot follow"),
)


class Unfit(Exception):
    """The lanes of a pack do not do what the trials alone do, or cannot be made."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error))


def lasting(error: BaseException) -> bool:
    """Whether another pack of such trials would fail in the same way: not what a busy machine may do."""
    return isinstance(error, Unfit) or bool(not out_of_memory(error) and _meaning(error))


def reason(error: BaseException) -> str:
    """On one line, without the places in torch where it was noticed."""
    if out_of_memory(error):
        return MEMORY
    if isinstance(error, Unfit):
        return str(error)
    return _meaning(error) or re.sub(r" \([^()]*site-packages[^()]*\)$", "", describe(error))


def _meaning(error: BaseException) -> str:
    found = (meaning for pattern, meaning in _MEANINGS if re.search(pattern, str(error)))
    return next(found, "") if isinstance(error, RuntimeError) else ""


def plain(names: list[str]) -> str:
    """What a model remembers, as its author calls it; two at most."""
    shown = [re.sub(r"^_usercode_(.*)_[0-9a-f]{8}\.", r"\1.", name) for name in names]
    return " and ".join(shown[:2]) if len(shown) < 3 else f"{shown[0]} and {len(shown) - 1} other things"
