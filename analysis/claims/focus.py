"""What a study's claims are about: the layer and the columns to show first where not all can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.claims.base import Claim
from analysis.observe import named

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Frames


def claimed_layer(claims: Sequence[Claim], tables: Frames) -> str | None:
    """The first weight matrix that a claim names, of those that the trials have; None where there is none."""
    from analysis.cells import last_layers

    there = list(last_layers(tables, ())["layer"].unique())
    return next((found for claim in claims for wanted in claim.layers for found in named(wanted, there)), None)


def claimed_columns(claims: Sequence[Claim], summary: pd.DataFrame, layer: str | None) -> list[str]:
    """Those of the columns of a summary that claims read, those of ``layer`` among them."""
    read = {name for claim in claims for name in claim.reads}
    return [column for column in summary if column in read or (
        layer is not None and column.startswith(f"{layer}.") and column.removeprefix(f"{layer}.") in read)]
