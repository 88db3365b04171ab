"""Validation of the data of a user's own task, once and in one place, before anything is trained on them.

What can only be meant one way is converted: NumPy arrays, whole numbers and truth values as inputs, labels of another
type, labels (n, 1), targets (n,), None as a test set. Everything else is refused in one line that says how to mend it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trials.errors import UserError, describe
from trials.streams import Stream
from trials.tasks.base import Data

LARGEST = torch.finfo(torch.float32).max  # so that it holds in either precision
DRAWN = 4  # samples of a fresh batch that are looked at


def checked(data: Any, place: str) -> Data:
    """A copy of ``data`` as ``trials.Data`` says it is, on the CPU. Raises UserError at ``place``."""
    if not isinstance(data, Data):
        raise UserError(f"{place} must return trials.Data, got {type(data).__name__}")
    classes = _classes(data.classes, place)
    x_train, y_train = _split(data.x_train, data.y_train, classes, place, "train")
    if not len(x_train):
        raise UserError(f"{place}: the training set is empty; it needs at least one sample")
    if data.x_test is None and data.y_test is None:
        x_test, y_test = x_train[:0], y_train[:0]
    else:
        x_test, y_test = _split(data.x_test, data.y_test, classes, place, "test")
    if not len(x_test):
        x_test, y_test = x_train[:0], y_train[:0]
    for name, test, train in (("x", x_test, x_train), ("y", y_test, y_train)):
        if test.shape[1:] != train.shape[1:]:
            raise UserError(f"{place}: a sample of {name}_test has shape {tuple(test.shape[1:])}, one of {name}_train "
                            f"{tuple(train.shape[1:])}; give both the same")
    whole = Data(x_train, y_train, x_test, y_test, classes)
    return whole if data.fresh is None else _fresh(whole, data.fresh, place)


def _classes(classes: Any, place: str) -> int | None:
    if classes is None:
        return None
    if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or classes < 2:
        raise UserError(f"{place}: classes must be a whole number of at least 2, or None for a regression, got "
                        f"{classes!r}")
    return int(classes)


def _split(x: Any, y: Any, classes: int | None, place: str, split: str) -> tuple[Tensor, Tensor]:
    """One of the two sets, checked."""
    x, y = _inputs(x, f"{place}: x_{split}"), _targets(y, classes, f"{place}: y_{split}")
    if len(x) != len(y):
        raise UserError(f"{place}: x_{split} has {len(x)} samples and y_{split} has {len(y)}; give both as many")
    return x, y


def _inputs(given: Any, place: str) -> Tensor:
    x = _tensor(given, place)
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise UserError(f"{place} has shape {tuple(x.shape)} and so no features; give it shape (n, features...), such "
                        "as x[:, None] for one number a sample")
    x = x if x.is_floating_point() else x.double()
    _check_finite(x, place)
    return x


def _targets(given: Any, classes: int | None, place: str) -> Tensor:
    y = _tensor(given, place)
    if y.ndim == 0:
        raise UserError(f"{place} is a single number; give one target a sample")
    if classes is not None:
        return _labels(y, classes, place)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or not y.shape[1]:
        raise UserError(f"{place} has shape {tuple(y.shape)}; a regression takes (n, outputs), such as y.flatten(1); "
                        "for labels give classes=")
    y = y if y.is_floating_point() else y.double()
    _check_finite(y, place)
    return y


def _labels(y: Tensor, classes: int, place: str) -> Tensor:
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        how = "; from one-hot rows take y.argmax(1)" if y.shape == (len(y), classes) else ""
        raise UserError(f"{place} has shape {tuple(y.shape)}; labels of classes are whole numbers of shape (n,){how}")
    if y.is_floating_point():
        _check_finite(y, place)
        if not bool((y == y.round()).all()):
            raise UserError(f"{place} holds {_first(y, y != y.round())}, but labels of classes are whole numbers; for "
                            "a regression give classes=None")
    y = y.long()
    outside = (y < 0) | (y >= classes)
    if bool(outside.any()):
        raise UserError(f"{place} holds labels from {int(y.min())} to {int(y.max())}, but with classes={classes} they "
                        f"must be 0 to {classes - 1}; the first outside is {_first(y, outside)}")
    return y


def _tensor(value: Any, place: str) -> Tensor:
    """A copy, on the CPU: whoever made it may change it later."""
    if isinstance(value, np.ma.MaskedArray):
        if (masked := int(np.ma.getmaskarray(value).sum())) > 0:
            raise UserError(f"{place} has {masked:,} masked values; fill them (x.filled(0)) or drop these samples")
        value = value.data
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        if value.dtype.kind == "f" and value.dtype.itemsize > 8:  # wider than torch has
            value = value.astype(np.float64)
        return torch.tensor(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("="), copy=False))
    if not isinstance(value, Tensor):
        what = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        how = "; give its .to_numpy()" if hasattr(value, "to_numpy") else ""
        raise UserError(f"{place}: expected a torch tensor or a NumPy array of numbers, got {what}{how}")
    if value.is_complex() or value.layout != torch.strided or value.is_meta or value.is_quantized or (
            value.is_nested):
        kind = "meta" if value.is_meta else "nested" if value.is_nested else f"{value.layout}".removeprefix("torch.")
        raise UserError(f"{place}: expected an ordinary tensor of real numbers, got {value.dtype} ({kind})")
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _check_finite(values: Tensor, place: str) -> None:
    wrong = ~values.isfinite()
    if values.dtype == torch.float64:
        wrong |= values.abs() > LARGEST
    if (count := int(wrong.sum())) > 0:
        raise UserError(f"{place} has {count:,} of {values.numel():,} values that are not finite numbers of single "
                        f"precision, first {_first(values, wrong)}; mend or drop these samples in the task")


def _first(values: Tensor, which: Tensor) -> str:
    """``nan at [3, 0]``: the first of those that ``which`` marks."""
    index = which.nonzero()[0].tolist()
    return f"{values[tuple(index)].item():g} at {index}"


def _fresh(data: Data, fresh: Any, place: str) -> Data:
    """``data`` with its draws checked: two of one batch, which must be equal."""
    def draw(stream: Stream, batch_size: int) -> tuple[Tensor, Tensor]:
        x, y = fresh(stream, batch_size)
        return _as(x, data.x_train), _as(y, data.y_train)

    place, stream = f"{place}: fresh", Stream.of(0, "check")
    try:
        drawn = [fresh(stream, DRAWN) for _ in range(2)]
        pairs = [(x, y) for x, y in drawn]
    except Exception as error:
        raise UserError(f"{place}(stream, {DRAWN}) must return a pair x, y: {describe(error)}") from error
    (x, y), (x_again, y_again) = (_split(*pair, data.classes, f"{place}(stream, {DRAWN})", "batch") for pair in pairs)
    for name, found, like in (("x", x, data.x_train), ("y", y, data.y_train)):
        if found.shape != (DRAWN, *like.shape[1:]):
            raise UserError(f"{place}(stream, {DRAWN}) returns {name} of shape {tuple(found.shape)}; expected "
                            f"{(DRAWN, *like.shape[1:])}, by the training set")
    if not (torch.equal(x, x_again) and torch.equal(y, y_again)):
        raise UserError(f"{place} returns another batch for the same stream; take all its random numbers from the "
                        "stream it is given (stream.normal, stream.uniform, stream.at(1) ...)")
    return Data(data.x_train, data.y_train, data.x_test, data.y_test, data.classes, draw)


def _as(values: Any, like: Tensor) -> Tensor:
    """What ``checked`` makes of such values, without looking at them: this is called every step, under vmap too."""
    found: Tensor = values if isinstance(values, Tensor) else torch.tensor(values, device=like.device)
    found = found[:, 0] if found.ndim == 2 and like.ndim == 1 else found
    found = found[:, None] if found.ndim == 1 and like.ndim == 2 else found
    return found.to(like.dtype)
