"""How a table's schema grows: columns come and stay, whole numbers may become real, nothing silently vanishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from trials.errors import UserError
from trials.records import COLUMNS, TABLES, VERSION_KEY

_NOT_CONFIG = {column.name for column in COLUMNS["trials"]}


def union(schemas: Sequence[pa.Schema], place: str) -> pa.Schema:
    """All columns of ``schemas`` in order of first appearance; units and descriptions are those of the last.

    int64 and float64 make float64; other differences of type raise UserError at ``place``. The order makes the result
    stable: two studies that take turns in one folder do not rewrite it each time.
    """
    fields: dict[str, pa.Field] = {}
    for field in (field for schema in schemas for field in schema):
        before = fields.get(field.name, field)
        if before.type != field.type:
            if {before.type, field.type} != {pa.int64(), pa.float64()}:
                raise UserError(f"{place}: column {field.name} is {before.type} there, but {field.type} in this study; "
                                "choose another results=PATH")
            field = field.with_type(pa.float64())
        fields[field.name] = field
    return pa.schema(fields.values(), metadata={VERSION_KEY: schemas[-1].metadata[VERSION_KEY]})


def targets(stored: Sequence[Mapping[str, pa.Schema]], wanted: Mapping[str, pa.Schema],
            place: str) -> dict[str, pa.Schema]:
    """The schema every table comes to have, from those of the parts there are and those of the study.

    A config column has one type in all tables: if ``trials`` makes it float64, so do the others.
    """
    result: dict[str, pa.Schema] = {}
    for table in TABLES:
        schemas = [*(part[table] for part in stored), wanted[table]]
        if table != "trials":
            names = {name for schema in schemas for name in schema.names} - _NOT_CONFIG
            schemas[-1:-1] = [pa.schema([field for field in result["trials"] if field.name in names])]
        result[table] = union(schemas, f"{place}/{table}")
    return result


def same(one: pa.Schema, other: pa.Schema) -> bool:
    """Whether two schemas have the same columns, types, units and descriptions, in the same order."""
    # Field by field: pyarrow's comparison also minds what Parquet calls the child of a list.
    return [(f.name, f.type, f.metadata) for f in one] == [(f.name, f.type, f.metadata) for f in other]


def conform(table: pa.Table, schema: pa.Schema, trials: pa.Table, place: str) -> pa.Table:
    """The rows of ``table`` in ``schema``.

    A config column it lacks is filled from each trial's row in ``trials``; any other is null. Raises UserError at
    ``place`` for a whole number that float64 does not hold.
    """
    rows = None
    arrays = []
    for field in schema:
        if field.name in table.column_names:
            column = table[field.name]
        elif field.name in trials.column_names and field.name not in _NOT_CONFIG:
            if rows is None:
                rows = pc.index_in(table["trial_id"], trials["trial_id"].combine_chunks())
            column = trials[field.name].take(rows)
        else:
            column = pa.nulls(table.num_rows, field.type)
        try:
            arrays.append(column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise UserError(f"{place}: column {field.name} holds a number that {field.type} does not; "
                            "choose another results=PATH") from error
    return pa.table(arrays, schema=schema)
