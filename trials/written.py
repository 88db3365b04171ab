"""The weights that a file's model uses: those that the file has in parts are put together, and their parts are no
layers. See trials/quantized.py, trials/reparametrized.py and trials/adapters.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trials.adapters import adapters
from trials.causal import masks
from trials.quantized import quantized
from trials.reparametrized import reparametrized
from trials.stored import Stored, put
from trials.weightfiles import stored_tensors

LARGEST = 2**22  # bytes of a config


def written_weights(path: str | Path) -> dict[str, Stored]:
    """Name -> weight of a model file (see ``stored_tensors``)."""
    place = Path(path)
    return together(stored_tensors(place), _config(place, "config.json"), _config(place, "adapter_config.json"))


def together(stored: Mapping[str, Stored], config: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, Stored]:
    """``stored`` with the weights in use instead of their parts; ``config`` and ``adapter`` are what config.json and
    adapter_config.json beside it say."""
    scaled = put(stored, quantized(stored, _block(config)))
    once = put(scaled, reparametrized(scaled))
    plain = put(once, reparametrized(once))  # pruning of the parts of a norm comes before it
    return put(plain, [*adapters(plain, adapter), *masks(plain)])


def _config(path: Path, name: str) -> dict[str, Any]:
    """A model's config beside its file, or in its folder; empty where there is none that can be read."""
    place = (path if path.is_dir() else path.parent) / name
    try:
        content = json.loads(place.read_bytes()) if place.is_file() and place.stat().st_size <= LARGEST else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _block(config: Mapping[str, Any]) -> list[int] | None:
    """The size of blocks that share a scale."""
    inner = config.get("quantization_config")
    block = inner.get("weight_block_size") if isinstance(inner, dict) else None
    good = isinstance(block, list) and all(type(size) is int and size > 0 for size in block)
    return block if good else None
