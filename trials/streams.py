"""Named random streams: every random number of a trial is a function of (seed, purpose, step, position).

Two kinds. ``generator`` seeds a CPU ``torch.Generator`` for what is drawn once on the host (initial weights, the order
of the data). ``Stream`` is counter-based: its numbers are a hash of a key and a position (the splitmix64 finalizer,
Steele, Lea & Flood 2014), so they are the same on every device, alone or in a pack under vmap, and a knob that is
switched on never shifts the numbers of another.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def derive(seed: int, purpose: str, *counters: int) -> int:
    """A signed 64-bit key for (seed, purpose, counters); different purposes give independent keys."""
    text = ":".join(str(part) for part in (seed, purpose, *counters))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator of its own for (seed, purpose, counters)."""
    return torch.Generator().manual_seed(derive(seed, purpose, *counters))


@contextmanager
def seeded(seed: int, purpose: str, device: str = "cpu") -> Iterator[None]:
    """``torch_seeded``, and the same of NumPy's and Python's global generators: for a user's own code."""
    numpy, python = np.random.get_state(), random.getstate()
    with torch_seeded(seed, purpose, device):
        np.random.seed(derive(seed, f"{purpose} numpy") % 2**32)
        random.seed(derive(seed, f"{purpose} python"))
        try:
            yield
        finally:
            np.random.set_state(numpy)
            random.setstate(python)


@contextmanager
def torch_seeded(seed: int, purpose: str, device: str = "cpu") -> Iterator[None]:
    """Inside, torch's global generators (the CPU's, and the device's if it is a GPU) start from (seed, purpose);
    outside, they are as if nothing had happened. For code of ours that draws from them: initializers."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: without a GPU in use it keeps, for a GPU to come, a record of every call.
        torch.default_generator.manual_seed(derive(seed, purpose))
        if devices:
            torch.cuda.manual_seed(derive(seed, purpose))
        yield


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical (not arithmetic) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


@dataclass(frozen=True)
class Stream:
    """A counter-based stream. ``key`` is an int64 tensor without dimensions (a lane of a pack sees its own)."""

    key: Tensor

    @classmethod
    def of(cls, seed: int, purpose: str, device: torch.device | str = "cpu") -> Stream:
        """The stream of (seed, purpose)."""
        return cls(torch.tensor(derive(seed, purpose), dtype=torch.int64, device=device))

    def at(self, counter: int | Tensor) -> Stream:
        """The sub-stream number ``counter`` (a training step, a layer, ...)."""
        position = torch.as_tensor(counter, dtype=torch.int64, device=self.key.device) + 1
        return Stream(_mix(self.key + position * _GOLDEN))

    def bits(self, shape: tuple[int, ...]) -> Tensor:
        """int64 of ``shape``, all 64 bits random."""
        position = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=self.key.device).reshape(shape)
        return _mix(self.key + position * _GOLDEN)

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform on the open interval (0, 1), of ``shape``; 23 random bits in float32, 52 in float64."""
        bits = 52 if dtype == torch.float64 else 23
        return (_shift_right(self.bits(shape), 64 - bits).to(dtype) + 0.5) * 2.0**-bits

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal of ``shape``, by the inverse distribution function in float64 (tails to 8 sigma)."""
        uniform = self.uniform(shape, torch.float64)
        return (torch.erfinv(2.0 * uniform - 1.0) * math.sqrt(2.0)).to(dtype)
