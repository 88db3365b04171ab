"""Handwritten digits, 8 x 8."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from trials.fields import count
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
        return _data(self)

    @property
    def train_size(self) -> int:
        return TRAIN


@lru_cache(maxsize=8)
def _data(task: Digits) -> Data:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    split = train_test_split(pixels, labels, test_size=TEST, stratify=labels, random_state=task.split_seed)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in split)
    mean, sd = x_train.mean(), x_train.std(correction=0)
    x_train, x_test = (((x - mean) / sd).reshape(-1, 1, 8, 8) for x in (x_train, x_test))
    return Data(x_train, y_train.long(), x_test, y_test.long(), classes=10)
