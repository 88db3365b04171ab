"""Read safetensors files: eight bytes with the length of a JSON header, the header, then the raw tensors.

https://github.com/huggingface/safetensors describes the format. Nothing in the header is believed before it is checked:
every tensor must lie in the file, be as long as its type and shape say, and begin where the one before it ends.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from trials.errors import UserError

LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, dtype)
    for name, dtype in {
        "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
        "F8_E5M2FNUZ": "float8_e5m2fnuz", "C64": "complex64", "I64": "int64", "I32": "int32",
        "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    }.items() if hasattr(torch, dtype)}


@dataclass(frozen=True)
class Place:
    """Where a tensor is: ``begin`` counts bytes from the start of the file, ``size`` from there. ``type`` is what the
    header calls the type; ``dtype`` is None where that is none of DTYPES."""

    type: str
    shape: tuple[int, ...]
    begin: int
    size: int

    @property
    def dtype(self) -> torch.dtype | None:
        """PyTorch's type."""
        return DTYPES.get(self.type)


def places(path: Path) -> dict[str, Place]:
    """Name -> place of every tensor, in the order of the header. Raises UserError, one line, if anything is amiss."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start, header = _header(file, path, size)
    header.pop("__metadata__", None)
    found = {name: _place(entry, start, f"{path}: tensor {name!r}") for name, entry in header.items()}
    end = start
    for name, place in sorted(found.items(), key=lambda item: (item[1].begin, item[1].size)):
        if place.begin != end:
            what = "overlaps the one before it" if place.begin < end else "leaves a gap before it"
            raise UserError(f"{path}: tensor {name!r} {what}: the header is damaged")
        end = place.begin + place.size
    if end != size:
        what = "truncated" if end > size else "damaged"
        raise UserError(f"{path}: {what}: its header speaks of {end:,} bytes, the file has {size:,}")
    return found


def read(path: Path, place: Place) -> Tensor:
    """One tensor, read into memory of its own: a map of the file would keep every page that was touched."""
    assert place.dtype is not None
    data = torch.empty(place.size, dtype=torch.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(place.begin)
        view, done = data.numpy().data, 0
        while done < place.size:
            count = file.readinto(view[done:])  # at most 2 GiB at a time
            if not count:
                raise UserError(f"{path}: truncated while it was read")
            done += count
    return data.view(place.dtype).reshape(place.shape)


def _header(file: BinaryIO, path: Path, size: int) -> tuple[int, dict[str, Any]]:
    """(Where the tensors begin, the header)."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise UserError(f"{path}: no safetensors file, or truncated: {size:,} bytes cannot hold its header")
    if length > LONGEST_HEADER:
        raise UserError(f"{path}: no safetensors file: a header of {length:,} bytes, {LONGEST_HEADER:,} are allowed")
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no safetensors file: its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise UserError(f"{path}: no safetensors file: its header is no JSON object")
    return 8 + length, header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _place(entry: object, start: int, what: str) -> Place:
    if not isinstance(entry, dict):
        raise UserError(f"{what}: expected dtype, shape and data_offsets in the header, got {entry!r:.60}")
    name, shape, offsets = entry.get("dtype"), _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if not isinstance(name, str):
        raise UserError(f"{what}: type {name!r:.60} is no name of a type")
    if shape is None:
        raise UserError(f"{what}: shape {entry.get('shape')!r:.60} is no list of sizes")
    if offsets is None or len(offsets) != 2:
        raise UserError(f"{what}: data_offsets {entry.get('data_offsets')!r:.60} are not two positions")
    place = Place(name, shape, start + offsets[0], offsets[1] - offsets[0])
    size = math.prod(shape) * place.dtype.itemsize if place.dtype is not None else max(0, place.size)
    if place.size != size:
        raise UserError(f"{what}: {name} of this shape takes {size:,} bytes, its data_offsets {list(offsets)} "
                        f"are {place.size:,}")
    return place


def _counts(values: object) -> tuple[int, ...] | None:
    """A list of whole numbers from 0 to 2^63 - 1, at most 64 of them; None if it is anything else."""
    if not isinstance(values, list) or len(values) > 64:
        return None
    return tuple(values) if all(type(value) is int and 0 <= value < 2**63 for value in values) else None
