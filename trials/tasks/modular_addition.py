"""Addition modulo p, the task on which networks grok."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

from trials.fields import count, real
from trials.streams import Stream
from trials.tasks.base import TASKS, Data, Task


@TASKS.register("modular_addition")
@dataclass(frozen=True)
class ModularAddition(Task):
    """The table a + b mod p, of which a random fraction is for training and the rest for testing (Power et al. 2022,
    arXiv 2201.02177). Inputs are one-hot a beside one-hot b, (2p,), as in Gromov 2023, arXiv 2301.02679; p classes.
    """

    modulus: int = count(97, low=2, high=1000, help="p")
    fraction: float = real(0.5, low=0, high=1, open_low=True, open_high=True,
                           help="fraction of the p^2 pairs to train on")
    data_seed: int = count(0, help="which pairs are for training")

    def data(self) -> Data:
        return _data(self).copy()

    @property
    def train_size(self) -> int:
        pairs = self.modulus**2
        return min(max(round(self.fraction * pairs), 1), pairs - 1)


@lru_cache(maxsize=8)
def _data(task: ModularAddition) -> Data:
    p, n = task.modulus, task.train_size
    order = Stream.of(task.data_seed, "modular_addition split").bits((p * p,)).argsort()
    a, b = order // p, order % p
    x = torch.cat([F.one_hot(a, p), F.one_hot(b, p)], dim=1).to(torch.float64)
    y = (a + b) % p
    return Data(x[:n], y[:n], x[n:], y[n:], classes=p)
