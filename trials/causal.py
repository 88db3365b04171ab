"""Causal masks of attention that a model keeps as buffers, such as GPT-2's ``attn.bias``: they are no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from trials.stored import Made, Stored, is_real, unread

NAMES = ("bias", "mask", "tril", "causal_mask", "attn_mask", "attention_mask")


def masks(stored: Mapping[str, Stored]) -> Iterator[Made]:
    """Square tensors of these names, or of shape (1, 1, n, n), of one number on and below the diagonal and another one
    above it."""
    for name, one in stored.items():
        shape = one.shape
        square = len(shape) >= 2 and shape[-1] == shape[-2] > 2 and all(size == 1 for size in shape[:-2])
        named = len(shape) == 4 or name.rpartition(".")[2] in NAMES
        if square and named and is_real(one) and not one.trouble and not one.made and _causal(one):
            yield Made(name, (name,), unread(shape, "a causal mask"))


def _causal(one: Stored) -> bool:
    value = one.load().reshape(one.shape[-2:]).float()
    below, above = value[0, 0], value[0, 1]
    return bool(below != above) and bool((value == torch.where(torch.ones_like(value).tril() > 0, below, above)).all())
