"""Handwritten digits, 8 x 8."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trials.errors import UserError
from trials.fields import count
from trials.streams import generator
from trials.tasks.base import TASKS, Data, Task

TRAIN, TEST = 1347, 450


@TASKS.register("digits")
@dataclass(frozen=True)
class Digits(Task):
    """1,797 images of 8 x 8 pixels in 10 classes (Alpaydin & Kaynak 1998, UCI; bundled with scikit-learn).

    1,347 are for training and 450 for testing, each class in the same proportion. Inputs are (1, 8, 8); pixels are
    shifted and scaled by one mean and one standard deviation, those of all pixels of the training set.
    """

    split_seed: int = count(0, help="which images are for testing")

    def data(self) -> Data:
        return _data(self).copy()

    @property
    def train_size(self) -> int:
        return TRAIN


@lru_cache(maxsize=8)
def _data(task: Digits) -> Data:
    table = torch.from_numpy(np.loadtxt(_file(), delimiter=","))
    pixels, labels = table[:, :-1], table[:, -1].long()
    test = _test_images(labels, task.split_seed)
    mean, sd = pixels[~test].mean(), pixels[~test].std(correction=0)
    x = ((pixels - mean) / sd).reshape(-1, 1, 8, 8)
    return Data(x[~test], labels[~test], x[test], labels[test], classes=10)


def _file() -> Path:
    """Read from where scikit-learn keeps it: importing it takes each worker longer than many trials do."""
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise UserError("task digits: its images come with scikit-learn; pip install scikit-learn")
    return Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")


def _test_images(labels: Tensor, seed: int) -> Tensor:
    """Which images are for testing, (n,) truth values: of each class, in random order, the same share."""
    order = torch.randperm(len(labels), generator=generator(seed, "split"))
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in range(10):
        members = order[labels[order] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[place.argsort(stable=True)[:TEST]] = True
    return chosen
