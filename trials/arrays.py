"""Tensors and arrays as plain data, and made of it again."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor_told(value: Tensor) -> Any:
    """Of one without numbers its shape; what is more than dense numbers, or has a gradient to keep, cannot be made."""
    if value.is_meta:
        return ["opaque", f"{tuple(value.shape)} {value.dtype}"]
    dense = value.detach().to_dense() if value.layout != torch.strided else value.detach().clone()
    return ["opaque", [dense, value.retains_grad]] if value.retains_grad or value.layout != torch.strided else dense


def tensor_made(told: Tensor, there: Any) -> Tensor:
    """The tensor that is told, in the memory of the one that is ``there``."""
    if not isinstance(there, Tensor):
        return told.clone()
    with torch.no_grad():
        held = there.detach()
        if (held.shape, held.dtype) == (told.shape, told.dtype):
            held.copy_(told)
        else:
            there.data = told.clone().to(there.device)
    return there


def array_made(parts: Tensor, there: Any, kind: str = "", shape: Any = ()) -> Any:
    """The array that is told, in the memory of the one that is ``there`` where it fits."""
    if not kind:  # as earlier versions told it
        return parts.numpy().copy()
    made = np.frombuffer(parts.numpy().tobytes(), kind).reshape(shape)
    if isinstance(there, np.ndarray) and (there.dtype, there.shape) == (made.dtype, made.shape):
        there[...] = made
        return there
    return made.copy()


def buffer_made(parts: bytes, there: Any) -> Any:
    """``there``, an ``array`` or a ``memoryview``, with these bytes."""
    if isinstance(there, array.array):
        there[:] = array.array(there.typecode, parts)
    elif isinstance(there, memoryview) and not there.readonly and there.nbytes == len(parts):
        there.cast("B")[:] = parts
    return there
