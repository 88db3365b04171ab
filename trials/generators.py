"""The global random number generators, from which a user's model may draw: their states, as plain data."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def states() -> dict[str, Any]:
    """Those of torch (and of its GPU, where one is in use), NumPy and Python."""
    name, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    return {"torch": torch.get_rng_state(), "cuda": _cuda(),
            "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *map(_number, rest)],
            "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss]}


def restore(states: dict[str, Any]) -> None:
    """Set them; the GPU's only where there is one."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))


def drawn(before: dict[str, Any]) -> str:
    """Which of NumPy's and Python's generators was drawn from since ``before``; torch's cannot be, in lanes."""
    now = states()
    return next((who for what, who in (("numpy", "NumPy"), ("python", "Python"))
                 if not torch.equal(now[what][1], before[what][1]) or now[what][2:] != before[what][2:]), "")


def _cuda() -> torch.Tensor | None:
    return torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]


def _number(value: Any) -> int | float:
    return int(value) if float(value).is_integer() else float(value)
