"""The tensors of a model file of anyone's, one at a time: PyTorch state dicts, safetensors, NumPy's arrays, and models
in shards.

No code in a file is ever run: PyTorch files are read with ``weights_only=True``. What holds pickled objects, is cut off
or damaged, or is no weight file at all, is refused with a UserError of one line. A tensor of a type that cannot be read
is one that says so: the others of its file are read.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trials import numpyfiles, safetensors
from trials.errors import UserError, did_you_mean, special_file
from trials.statedicts import flat, unwrapped
from trials.stored import Stored, unread

FOLDER = ("*.safetensors.index.json", "*.safetensors", "*.bin.index.json", "pytorch_model*.bin", "*.pt", "*.pth")
UNPACKED = 2**30  # bytes of a compressed PyTorch file, which has to be read as a whole
_MAPPED = 2**26  # bytes read from a map of a PyTorch file before it is mapped anew: what was touched stays in memory


def stored_tensors(path: str | Path) -> dict[str, Stored]:
    """Name -> tensor of a file, of the shards that a ``*.index.json`` lists, or of a folder, in the order of the file.

    A folder is read by its index if it has one, else all its safetensors, else its PyTorch files. Names are without
    what wrappers put before all of them (``module.``); see trials/statedicts.py for those of checkpoints.
    """
    found = _read(Path(path))
    short = unwrapped(found)
    return {short[name]: stored for name, stored in found.items()}


def _read(place: Path) -> dict[str, Stored]:
    try:
        if os.path.isdir(place):  # which, unlike the method of Path, says no to a name that is too long
            return _folder(place)
        if not os.path.exists(place):
            near = did_you_mean(place.name, [other.name for other in _siblings(place)])
            raise UserError(f"{place}: no such file{f'; {near}' if near.startswith('did') else ''}")
        if what := special_file(place):
            raise UserError(f"{place}: {what}, expected a file or a folder")
        found = _index(place) if place.suffix == ".json" else _file(place)
    except OSError as error:
        raise UserError(f"{place}: cannot be read: {error.strerror or error}") from None
    if not found:
        raise UserError(f"{place}: holds no tensors")
    return found


def _siblings(place: Path) -> Iterator[Path]:
    return place.parent.iterdir() if place.parent.is_dir() else iter(())


def _file(path: Path) -> dict[str, Stored]:
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise UserError(f"{path}: empty")
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return {name: Stored(place.shape, place.dtype, partial(safetensors.read, path, place)) if place.dtype else
                unread(place.shape, f"of type {place.type:.20}")
                for name, place in safetensors.places(path).items()}
    zipped = head.startswith(b"PK\x03\x04")
    entries = _entries(path) if zipped else []
    if head.startswith(numpyfiles.MAGIC) or (entries and all(each.filename.endswith(".npy") for each in entries)):
        return numpyfiles.stored_arrays(path, zipped)
    if zipped or head.startswith(b"\x80"):
        return _TorchFile(path, mapped=zipped and not _compressed(path, entries)).stored()
    raise UserError(f"{path}: no weight file: expected a PyTorch state dict, safetensors, .npz or .npy")


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """What is in a zip; nothing where that cannot be read, of which torch.load says what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


def _compressed(path: Path, entries: list[zipfile.ZipInfo]) -> bool:
    """Whether any entry of the zip is. Then it cannot be mapped: what is in the file are not the numbers."""
    size = sum(entry.file_size for entry in entries)
    if all(entry.compress_type == zipfile.ZIP_STORED for entry in entries):
        return False
    if size > UNPACKED:
        raise UserError(f"{path}: compressed, and {size:,} bytes unpacked; {UNPACKED:,} are allowed: save it with "
                        "torch.save, which does not compress")
    return True


def _folder(folder: Path) -> dict[str, Stored]:
    for pattern in FOLDER:
        paths = sorted(folder.glob(pattern))
        if pattern.endswith(".json") and len(paths) > 1:
            raise UserError(f"{folder}: several models; give one of {', '.join(path.name for path in paths)}")
        if paths:
            return _index(paths[0]) if pattern.endswith(".json") else _shards(paths)
    raise UserError(f"{folder}: no weight files in this folder; expected one of {', '.join(FOLDER)}")


def _shards(paths: list[Path]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    home: dict[str, Path] = {}
    for path in paths:
        for name, stored in _read(path).items():
            if name in found:
                raise UserError(f"{path.parent}: {home[name].name} and {path.name} both hold {name!r}: several models; "
                                "give one of the files")
            found[name], home[name] = stored, path
    return found


def _index(path: Path) -> dict[str, Stored]:
    """The tensors that ``weight_map`` of an index names, each from its shard in the same folder."""
    try:
        names = json.loads(path.read_bytes())["weight_map"]
        listed = {str(name): str(shard) for name, shard in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: no index of shards: expected JSON with a weight_map, names to files") from None
    found = {}
    for shard in dict.fromkeys(listed.values()):
        place = path.parent / shard
        if place.name != shard or not place.is_file():
            raise UserError(f"{path}: its shard {shard!r} is not in the folder")
        inside = _file(place)
        for name in (name for name, where in listed.items() if where == shard):
            if name not in inside:
                raise UserError(f"{path}: {name!r} is not in its shard {shard!r}")
            found[name] = inside[name]
    return found


class _TorchFile:
    """A file of torch.save. Those in the format of PyTorch before 1.6, and compressed ones, cannot be mapped and are
    read as a whole."""

    def __init__(self, path: Path, mapped: bool) -> None:
        self._path, self._mapped = path, mapped
        self._tensors = self._open()
        self._touched = 0

    def stored(self) -> dict[str, Stored]:
        found = {}
        for name, tensor in self._tensors.items():
            trouble, dtype = _unreadable(tensor), torch.float32 if tensor.is_quantized else tensor.dtype
            found[name] = (unread(_shape(tensor), trouble) if trouble
                           else Stored(_shape(tensor), dtype, partial(self._load, name)))
        return found

    def _load(self, name: str) -> Tensor:
        if self._mapped and self._touched > _MAPPED:
            self._tensors, self._touched = {}, 0  # unmapped before it is mapped anew
            self._tensors = self._open()
        tensor = self._tensors[name].detach()
        self._touched += tensor.numel() * tensor.element_size()
        if tensor.is_quantized:
            return tensor.dequantize()
        return tensor.clone() if self._mapped else tensor

    def _open(self) -> dict[str, Tensor]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickle protocols and old storages
                content = torch.load(str(self._path), map_location="cpu", weights_only=True, mmap=self._mapped)
        except Exception as error:  # a damaged file may raise anything
            raise UserError(f"{self._path}: {_trouble(error)}") from None
        return _state_dict(content, self._path)


def _trouble(error: Exception) -> str:
    """What torch.load found wrong with a file, in one line."""
    message = str(error)
    fix = "save the tensors alone: torch.save(model.state_dict(), PATH)"
    if code := re.search(r"GLOBAL (\S+)|TorchScript|\.tar files", message):
        return f"holds pickled code ({code[1] or 'an archive of code'}), which is never run; {fix}"
    if isinstance(error, pickle.UnpicklingError):
        return f"damaged, or holds pickled objects that are no tensors; {fix}"
    return f"truncated, damaged or no PyTorch state dict ({next(iter(message.splitlines()), 'no data')[:100]})"


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return () if tensor.is_nested else tuple(tensor.shape)


def _unreadable(tensor: Tensor) -> str:
    """Why the entries of a tensor cannot be read as they are; "" where they can."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"of layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_meta:
        return "without entries (meta)"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "an expanded view"
    return ""


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, or of what a checkpoint holds."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds an object of type {type(content).__name__}, expected a state dict")
    tensors = flat(content)
    if content and not tensors:
        names = ", ".join(f"{name!r:.60}" for name in list(content)[:5])
        raise UserError(f"{path}: no state dict: there are no tensors beside {names}")
    return tensors
