"""Whether lanes do what trials alone do, and recorded steps what the model itself does: equal but for rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trials.observer import Reading
from trials.optimizers.base import Params


def difference(found: Reading, alone: Reading, initial: Params) -> str:
    """What of two readings differs by more than rounding, in words; empty if nothing does."""
    close, tiny = _tolerances(all(value.dtype == torch.float64 for value in initial.values()))
    for name, value in alone.params.items():
        apart, moved, size = (torch.linalg.vector_norm(each).item()
                              for each in (found.params[name] - value, value - initial[name], value))
        if math.isfinite(size) and not apart <= close * moved + tiny * (1.0 + size):
            return f"parameter {name} is trained"
    for name, value in alone.buffers.items():
        own = value.double()  # a mask of true and false has no difference
        apart, size = (torch.linalg.vector_norm(each).item() for each in (found.buffers[name].double() - own, own))
        if math.isfinite(size) and not apart <= close * size + tiny:
            return f"buffer {name} is updated"
    for name in ("train_loss", "test_loss"):
        ours, theirs = found.losses[name], alone.losses[name]
        if (ours is not None and theirs is not None and math.isfinite(theirs)
                and not abs(ours - theirs) <= close * abs(theirs) + tiny):
            return f"{name} is measured"
    return ""


def steps_differ(before: Sequence[Params], ours: Sequence[Params], theirs: Sequence[Params]) -> bool:
    """Whether two steps from ``before`` end apart, in any lane whose numbers are finite; all (K, ...), and in pairs of
    parameters and buffers."""
    for start, mine, other in zip(before, ours, theirs, strict=True):
        for name, value in other.items():
            close, tiny = _tolerances(value.dtype == torch.float64)
            ours_K, own, first = (each.double().reshape(len(value), -1) for each in (mine[name], value, start[name]))
            apart_K, moved_K, size_K = (each.norm(dim=1) for each in (ours_K - own, own - first, own))
            if bool((size_K.isfinite() & ~(apart_K <= close * moved_K + tiny * (1.0 + size_K))).any()):
                return True
    return False


def _tolerances(precise: bool) -> tuple[float, float]:
    """Of what has changed, and of the size of what has; ``precise`` where all of it is float64."""
    return (1e-8, 1e-12) if precise else (1e-2, 1e-5)
