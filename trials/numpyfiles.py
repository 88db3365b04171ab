"""Read NumPy's files: an array (.npy), or a zip of them (.npz). Pickled objects are never loaded.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html describes the format.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from trials.errors import UserError
from trials.stored import Stored, unread

MAGIC = b"\x93NUMPY"
_ENDING = ".npy"
_Open = Callable[[], AbstractContextManager[IO[bytes]]]


def stored_arrays(path: Path, zipped: bool) -> dict[str, Stored]:
    """Name -> array, in the order of the file; a .npy's name is the file's."""
    if not zipped:
        return {path.stem: _stored(lambda: path.open("rb"), str(path))}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return {name.removesuffix(_ENDING): _stored(partial(_entry, path, name), f"{path}: {name}") for name in names}


class _entry(AbstractContextManager[IO[bytes]]):
    """A file in a zip, open."""

    def __init__(self, path: Path, name: str) -> None:
        self._archive = zipfile.ZipFile(path)
        self._file = self._archive.open(name)

    def __enter__(self) -> IO[bytes]:
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._archive.close()


def _stored(opened: _Open, what: str) -> Stored:
    try:
        with opened() as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(file)
    except Exception as error:  # a damaged file may raise anything
        raise _damaged(what, error) from None
    if dtype.hasobject:
        return unread(shape, "pickled objects, which are never loaded")
    try:
        kind = torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        return unread(shape, f"of NumPy's type {dtype}")
    return Stored(shape, kind, partial(_load, opened, what))


def _load(opened: _Open, what: str) -> Tensor:
    try:
        with opened() as file:
            array = npy.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged file may raise anything
        raise _damaged(what, error) from None
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _damaged(what: str, error: Exception) -> UserError:
    why = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"{what}: truncated or damaged ({why[:100]})")
