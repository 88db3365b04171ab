"""SQL over the four tables, read-only: DuckDB scans the Parquet parts lazily and sees nothing but them."""

from __future__ import annotations

import os
import re
import tempfile
from typing import TYPE_CHECKING

import pandas as pd

from analysis.tables import Tables, load
from trials.errors import UserError, did_you_mean
from trials.records import TABLES

if TYPE_CHECKING:
    import duckdb

_EXPLAIN = re.compile(r"\s*explain(\s+analyze\b)?(\s*\([^)]*\))?", re.IGNORECASE)
# What DuckDB says of a name that is not there: (what, the name).
_UNKNOWN = re.compile(r"(Table) with name (\S+) does not exist|(column) \"([^\"]+)\" not found"
                      r"|does not have a (column) named \"([^\"]+)\"")


def query(path: str | os.PathLike[str] | Tables, sql: str) -> pd.DataFrame:
    """The answer to one SELECT (WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN) over ``trials``, ``steps``,
    ``layers`` and ``spectra``.

    The dialect is DuckDB's. Columns and filters go down to the Parquet files, and rows are streamed, so a table may be
    larger than memory. Files, network, settings and Python variables are out of the statement's reach. Raises
    UserError, one line, for any other statement and whatever is wrong in this one, and as ``load`` does.
    """
    import duckdb

    tables = path if isinstance(path, Tables) else load(path)

    def read() -> pd.DataFrame:
        with tempfile.TemporaryDirectory() as spill, _connect(tables, spill) as connection:
            _check_read_only(connection, sql)
            try:
                return connection.sql(sql).to_arrow_table().to_pandas()
            except duckdb.Error as error:
                if "reading the stream registered as" in str(error):
                    raise OSError(str(error)) from None  # not the statement's fault
                raise _plain(tables, error) from None

    return tables.settled(read, *TABLES)


def _connect(tables: Tables, spill: str) -> duckdb.DuckDBPyConnection:
    """A database in memory with the tables as views, then locked."""
    import duckdb

    connection = duckdb.connect(config={
        "python_enable_replacements": "false", "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false", "temp_directory": spill})
    for name in TABLES:
        connection.register(name, tables.rows(name))
    for setting in ("TimeZone = 'UTC'", "enable_progress_bar = false",  # which it prints among the rows of what is slow
                    "enable_external_access = false", "lock_configuration = true"):
        connection.execute(f"SET {setting}")
    return connection


def _check_read_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise UserError unless ``sql`` is exactly one statement that only reads."""
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        kinds = [statement.type for statement in statements]
        if kinds == [duckdb.StatementType.EXPLAIN]:  # EXPLAIN ANALYZE runs what it explains
            inner = _EXPLAIN.sub("", statements[0].query, count=1)
            kinds = [statement.type for statement in connection.extract_statements(inner)]
    except duckdb.Error as error:
        raise UserError(f"query: {_line(error)}") from None
    if len(kinds) != 1:
        raise UserError(f"query: expected one SELECT statement, got {len(kinds)} statements")
    if kinds[0] != duckdb.StatementType.SELECT:
        raise UserError(f"query: only reads: expected a SELECT, got a statement of the kind {kinds[0].name}")


def _plain(tables: Tables, error: duckdb.Error) -> UserError:
    """What DuckDB said, on one line; for an unknown name, the nearest of those there are."""
    unknown = _UNKNOWN.search(str(error))
    if unknown is None:
        return UserError(f"query: {_line(error)}")
    what, name = (group for group in unknown.groups() if group)
    known = TABLES if what == "Table" else {
        column for table in TABLES for column in tables.rows(table).schema.names}
    return UserError(f"query: no {what.lower()} called {name!r}; {did_you_mean(name, known)}")


def _line(error: Exception) -> str:
    """The first line of DuckDB's message, without the kind of error before it."""
    first = str(error).splitlines()[0]
    return re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", first)
