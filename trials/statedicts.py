"""State dicts: the tensors in what a checkpoint holds, however deep they lie, by names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

DEEPEST = 8
NO_WEIGHTS = re.compile("optim|sched|scaler|rng", re.IGNORECASE)  # what else has tensors in a checkpoint
WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")  # of DistributedDataParallel, torch.compile, PEFT


def flat(content: Mapping[object, object]) -> dict[str, Tensor]:
    """Name -> tensor, words joined by dots; without the states of optimizers and the like.

    What all matrices lie in (``state_dict``, ``model`` ...) is left out of the names: a checkpoint of one model has the
    model's own names, one with several models names them first (``encoder.fc1.weight``, ``ema.fc1.weight``).
    """
    found = list(_walk(content, ()))
    homes = [path[:-1] for path, tensor in found if tensor.ndim >= 2] or [path[:-1] for path, _ in found]
    low, high = min(homes, default=()), max(homes, default=())
    shared = low[:next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]
    named: dict[str, Tensor] = {}
    for path, tensor in found:
        name = ".".join(path[len(shared):] if path[:len(shared)] == shared else path)
        while name in named:  # "a.b" beside {"a": {"b": ...}}
            name += "#2"
        named[name] = tensor
    return named


def _walk(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif len(path) < DEEPEST and isinstance(value, (Mapping, list, tuple)):
        if isinstance(value, Mapping) and "param_groups" in value:  # an optimizer
            return
        items: Iterable[tuple[object, object]] = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            if isinstance(inner, Tensor) or not NO_WEIGHTS.search(str(key)):
                yield from _walk(inner, (*path, str(key)))


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Name -> name without the prefixes that wrappers of modules put before all of them."""
    found = {name: name for name in names}
    while found and (prefix := next((w for w in WRAPPERS if all(n.startswith(w) and n != w for n in found.values())),
                                    "")):
        found = {name: short[len(prefix):] for name, short in found.items()}
    return found
