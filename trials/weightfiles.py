"""The tensors of a model file of anyone's, one at a time: PyTorch state dicts, safetensors, and models in shards.

No code in a file is ever run: PyTorch files are read with ``weights_only=True``. What holds pickled objects, is cut off
or damaged, or is no weight file at all, is refused with a UserError of one line.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trials import safetensors
from trials.errors import UserError, did_you_mean

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")  # what checkpoints call the state dict inside them
FOLDER = ("*.safetensors.index.json", "*.safetensors", "*.bin.index.json", "pytorch_model*.bin", "*.pt", "*.pth")
_MAPPED = 2**26  # bytes read from a map of a PyTorch file before it is mapped anew: what was touched stays in memory


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: ``load`` reads it, alone, to the CPU."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]


def stored_tensors(path: str | Path) -> dict[str, Stored]:
    """Name -> tensor of a file, of the shards that a ``*.index.json`` lists, or of a folder, in the order of the file.

    A folder is read by its index if it has one, else all its safetensors, else its PyTorch files. A state dict may lie
    in a checkpoint under ``state_dict``, ``model_state_dict``, ``model`` or ``module``.
    """
    place = Path(path)
    try:
        if place.is_dir():
            return _folder(place)
        if not place.is_file():
            near = did_you_mean(place.name, [other.name for other in _siblings(place)])
            raise UserError(f"{place}: no such file{f'; {near}' if near.startswith('did') else ''}")
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
        places = safetensors.places(path)
        return {name: Stored(place.shape, place.dtype, lambda place=place: safetensors.read(path, place))  # type: ignore[misc]
                for name, place in places.items()}
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _TorchFile(path, mapped=head.startswith(b"PK")).stored()
    raise UserError(f"{path}: no weight file: expected a PyTorch state dict or safetensors")


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
        for name, stored in stored_tensors(path).items():
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
    """A file of torch.save. Files in the format of PyTorch before 1.6 cannot be mapped and are read as a whole."""

    def __init__(self, path: Path, mapped: bool) -> None:
        self._path, self._mapped = path, mapped
        self._tensors = self._open()
        self._touched = 0

    def stored(self) -> dict[str, Stored]:
        return {name: Stored(tuple(tensor.shape), tensor.dtype, lambda name=name: self._load(name))  # type: ignore[misc]
                for name, tensor in self._tensors.items()}

    def _load(self, name: str) -> Tensor:
        if self._mapped and self._touched > _MAPPED:
            self._tensors, self._touched = {}, 0  # unmapped before it is mapped anew
            self._tensors = self._open()
        tensor = self._tensors[name].detach()
        size = tensor.numel() * tensor.element_size()
        if tensor.is_meta or tensor.layout != torch.strided or size > tensor.untyped_storage().nbytes():
            raise UserError(f"{self._path}: {name!r} is not stored entry by entry")
        self._touched += size
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


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, which may lie inside the wrapper of a checkpoint, or of two."""
    for _ in range(2):
        if isinstance(content, Mapping):
            inner = (content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping))
            content = next(inner, content)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds an object of type {type(content).__name__}, expected a state dict")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if content and not tensors:
        names = ", ".join(f"{name!r:.60}" for name in list(content)[:5])
        raise UserError(f"{path}: no state dict: there are no tensors beside {names}")
    return tensors
