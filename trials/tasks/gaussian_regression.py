"""Linear regression on Gaussian inputs, the task whose answers are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trials.fields import count, flag, real
from trials.streams import Stream
from trials.tasks.base import TASKS, Data, Task

TEST = 1000


@TASKS.register("gaussian_regression")
@dataclass(frozen=True)
class GaussianRegression(Task):
    """y = x . w* + noise e with x ~ N(0, I_d), e ~ N(0, 1) and w* uniform on the unit sphere; loss 1/2 (output - y)^2.

    The expected loss at w is (norm(w - w*)^2 + noise^2) / 2 and its Hessian is I. With fresh samples and no noise, one
    step of SGD multiplies E norm(w - w*)^2 by 1 - 2 lr + lr^2 (1 + (d + 1) / B), so it is stable iff
    lr < 2 / (1 + (d + 1) / B) (follows from E (x x^T)^2 = (d + 2) I).
    """

    dim: int = count(100, low=1, help="number of inputs d")
    samples: int = count(1000, low=1, help="size of the training set")
    fresh: bool = flag(False, help="draw new samples at every step; the training set then only measures the loss")
    noise: float = real(0.0, low=0, help="standard deviation of the noise in y")
    data_seed: int = count(0, help="seed of w* and of the samples")

    def data(self) -> Data:
        return _data(self).copy()

    @property
    def train_size(self) -> int | None:
        return None if self.fresh else self.samples


def true_weights(task: GaussianRegression) -> Tensor:
    """w*, float64 of shape (d,)."""
    w = Stream.of(task.data_seed, "gaussian_regression weights").normal((task.dim,), torch.float64)
    norm: Tensor = torch.linalg.vector_norm(w)
    return w / norm


@lru_cache(maxsize=8)
def _data(task: GaussianRegression) -> Data:
    w = true_weights(task)

    def draw(stream: Stream, samples: int) -> tuple[Tensor, Tensor]:
        x = stream.at(0).normal((samples, task.dim), torch.float64)
        e = stream.at(1).normal((samples, 1), torch.float64)
        return x, x @ w.to(x.device)[:, None] + task.noise * e

    train, test = (Stream.of(task.data_seed, f"gaussian_regression {part}") for part in ("train", "test"))
    return Data(*draw(train, task.samples), *draw(test, TEST), classes=None, fresh=draw if task.fresh else None)
