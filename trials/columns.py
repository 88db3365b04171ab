"""A declared column of a results table: name, Arrow type, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column. ``unit`` is ``1`` for a dimensionless number and empty for text; ``help`` says what it means."""

    name: str
    type: pa.DataType
    unit: str
    help: str

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with unit and meaning in its metadata."""
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "description": self.help})


def number(name: str, help: str, unit: str = "1") -> Column:
    """A float64 column."""
    return Column(name, pa.float64(), unit, help)


def whole(name: str, help: str, unit: str = "1") -> Column:
    """An int64 column."""
    return Column(name, pa.int64(), unit, help)


def text(name: str, help: str) -> Column:
    """A string column."""
    return Column(name, pa.string(), "", help)
