"""What is measured of a trial beside its losses and its weights' spectra: predictions, activations, gradients,
curvature, tangent kernel.

One file a measurement: its columns, formula and source, and one function of a ``Snapshot``, all in ``MEASUREMENT``. The
study's ``measure:`` block switches groups of them on.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from trials.columns import Column
from trials.measurements.base import Measurement, Snapshot

ByLayer = dict[str, dict[str, Any]]  # layer -> column -> value

MEASUREMENTS: tuple[Measurement, ...] = tuple(
    found for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)
    if (found := getattr(importlib.import_module(f"{__name__}.{module.name}"), "MEASUREMENT", None)) is not None)


def columns(table: str) -> tuple[Column, ...]:
    """The columns that measurements add to ``table`` (``steps``, ``layers`` or ``spectra``)."""
    return tuple(column for each in MEASUREMENTS if each.table == table for column in each.columns)


def measure(snapshot: Snapshot, groups: Iterable[str]) -> tuple[dict[str, Any], ByLayer, ByLayer]:
    """All measurements of these groups: values for the row of ``steps``, for ``layers``, for ``spectra``."""
    chosen = set(groups)
    step: dict[str, Any] = {}
    by_layer: dict[str, ByLayer] = {"layers": {}, "spectra": {}}
    for each in MEASUREMENTS:
        if each.group in chosen:
            found = each.function(snapshot)
            if each.table == "steps":
                step.update(found)
            else:
                for layer, values in found.items():
                    by_layer[each.table].setdefault(layer, {}).update(values)
    return step, by_layer["layers"], by_layer["spectra"]
