"""Fingerprint of data: equal for equal data, on any machine.

Functions such as sine or a matrix product differ between processors in their last bits, so a hash of all bits would
call the same data different on a cluster of two kinds of node. Shapes and labels are hashed; of each tensor of real
numbers there is the norm and a few random projections, which are compared with a tolerance far above rounding and far
below the change of a single sample. The same of the numbers evened out, so that a large feature or an outlier, beside
which all others are rounding, hides nothing.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from trials.streams import Stream
from trials.tasks.base import Data

PROJECTIONS = 3
TOLERANCE = 1e-5  # of the norm; rounding in single precision moves a projection by some 1e-7 of it
WIDTH = 4096  # numbers that are projected at once
TYPICAL = 1000  # samples by which a feature is evened out
DRAWN = 16  # samples of a fresh batch


def fingerprint(data: Data) -> str:
    """Of everything a trial gets to see: sixteen digits of a hash, then for each real tensor norm and projections, and
    again for each, evened out."""
    tensors = [data.x_train, data.y_train, data.x_test, data.y_test]
    if data.fresh is not None:
        tensors += data.fresh(Stream.of(0, "fingerprint"), DRAWN)
    digest = hashlib.blake2b(repr(data.classes).encode(), digest_size=8)
    numbers: list[float] = []
    evened: list[float] = []
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        if tensor.is_floating_point():
            numbers += _sketch(tensor)
            evened += _sketch(tensor, _typical(tensor))
        else:
            digest.update(tensor.contiguous().numpy().tobytes())
    return " ".join([digest.hexdigest(), *(f"{number:.9g}" for number in numbers + evened)])


def same(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same data. Those of earlier versions have nothing evened out."""
    (hash_one, *ours), (hash_other, *theirs) = one.split(), other.split()
    if hash_one != hash_other:  # which tells of the shapes too, and so of how many numbers there are
        return False
    for start in range(0, min(len(ours), len(theirs)), 1 + PROJECTIONS):
        norm, *pairs = zip(map(float, ours[start : start + 1 + PROJECTIONS]),
                           map(float, theirs[start : start + 1 + PROJECTIONS]), strict=True)
        if any(abs(a - b) > TOLERANCE * max(norm) for a, b in [norm, *pairs]):
            return False
    return True


def _typical(values: Tensor) -> Tensor:
    """The size of a number in each place of a sample, flat: the median of some; 1 where that is 0."""
    sizes = values[:TYPICAL].flatten(1).double().abs()
    typical = sizes.median(0).values if len(sizes) else sizes.new_zeros(sizes.shape[1])
    return typical.where(typical > 0, sizes.new_ones(()))


def _sketch(values: Tensor, typical: Tensor | None = None) -> list[float]:
    """The norm, and PROJECTIONS projections on random tensors, each the outer product of two vectors. Where ``typical``
    is given, of asinh(value / typical): as it is near 0, and for large numbers their order of magnitude."""
    flat = values.reshape(-1)
    within = Stream.of(0, "projection").normal((WIDTH, PROJECTIONS), torch.float64)
    square, sums = 0.0, torch.zeros(PROJECTIONS, dtype=torch.float64)
    rows = Stream.of(1, "projection")
    for number, start in enumerate(range(0, len(flat), WIDTH * WIDTH)):
        part = flat[start : start + WIDTH * WIDTH].double()
        if typical is not None:
            part = (part / typical[torch.arange(start, start + len(part)) % len(typical)]).asinh()
        square += float(part.square().sum())
        part = torch.nn.functional.pad(part, (0, -len(part) % WIDTH)).reshape(-1, WIDTH)
        across = rows.at(number).normal((len(part), PROJECTIONS), torch.float64)
        sums += (across * (part @ within)).sum(0)
    return [square**0.5, *sums.tolist()]
