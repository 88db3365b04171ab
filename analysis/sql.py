"""SQL over the four tables, read-only: DuckDB scans the Parquet parts lazily and sees nothing but them.

A statement works in a thread of its own, so that Ctrl-C and SIGTERM reach the one that waits, which then stops it. What
it may take is bounded: memory by half of what this process may have, the disk for what does not fit by a few gigabytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
import pyarrow as pa

from analysis.tables import Tables, load
from trials.errors import UserError, did_you_mean, nearest
from trials.records import TABLES

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")
BATCH = 8192  # rows of the answer at a time
FEWER = "aggregate, take fewer columns, or a LIMIT"
NEAREST = 3  # columns that are named for one that is not there
SPILL = 8 << 30  # bytes on disk at most, for what does not fit into memory; never more than half of what is free
PATIENCE = 3.0  # seconds that a statement is given to stop; it takes milliseconds
CGROUP = Path("/sys/fs/cgroup")
_EXPLAIN = re.compile(r"\s*explain(\s+analyze\b)?(\s*\([^)]*\))?", re.IGNORECASE)
# What DuckDB says of a name that is not there: (what, the name).
_DUCKDB = re.compile(r"[A-Z][A-Za-z ]* Error: ")  # how its own errors begin
_UNKNOWN = re.compile(r"(Table) with name (\S+) does not exist|(column) \"([^\"]+)\" not found"
                      r"|does not have a (column) named \"([^\"]+)\"")


def query(path: str | os.PathLike[str] | Tables, sql: str) -> pd.DataFrame:
    """The answer to one SELECT (WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN) over ``trials``, ``steps``,
    ``layers`` and ``spectra``.

    The dialect is DuckDB's. Columns and filters go down to the Parquet files, and rows are streamed, so a table may be
    larger than memory; the answer may not. Files, network, settings and Python variables are out of the statement's
    reach. Raises UserError, one line, for any other statement and whatever is wrong in this one, and as ``load`` does.
    """
    tables = path if isinstance(path, Tables) else load(path)

    def read() -> pd.DataFrame:
        with contextlib.closing(_answer(tables, sql)) as answer:
            kept, size, most = [], 0, memory_limit()
            for batch in answer:
                kept.append(batch)
                size += batch.nbytes
                if size > most:
                    raise UserError(f"query: the answer takes more than {_gigabytes(most)} of memory; {FEWER}")
        return pa.Table.from_batches(kept).to_pandas()

    return tables.settled(read, *TABLES)


def stream(path: str | os.PathLike[str] | Tables, sql: str) -> Generator[pa.RecordBatch, None, None]:
    """The same answer, in batches of rows, one at least (it may be empty), of which one is held at a time; close it
    where it is not read to its end. Raises UserError also where the results are replaced under its hands."""
    tables = path if isinstance(path, Tables) else load(path)

    def begin() -> tuple[pa.RecordBatch, Generator[pa.RecordBatch, None, None]]:
        answer = _answer(tables, sql)
        return next(answer), answer

    first, rest = tables.settled(begin, *TABLES)
    with contextlib.closing(rest):
        yield first
        try:
            yield from rest
        except OSError as error:
            raise UserError(f"{tables.place}: replaced while it was read: {str(error).splitlines()[0]}; ask again") \
                from None


def memory_limit() -> int:
    """Bytes that a statement may take: half of the machine's, or of what this process may have."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2 and v1; "max" is no limit
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((CGROUP / file).read_text()))
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        if (soft := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY:
            limits.append(soft)
    return min(limits) // 2


def _answer(tables: Tables, sql: str) -> Generator[pa.RecordBatch, None, None]:
    """The batches of the answer; OSError where a part was replaced meanwhile."""
    import duckdb

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as spill, _connect(tables, spill) as connection:
        _check_read_only(connection, sql)

        def run() -> pa.RecordBatchReader:
            answer = connection.sql(sql)
            return getattr(answer, "to_arrow_reader", answer.fetch_arrow_reader)(BATCH)  # the second in DuckDB 1

        try:
            reader, batch = _stoppable(connection, run), None
            while True:
                before, batch = batch, _stoppable(connection, lambda: next(iter(reader), None))
                if batch is None:
                    break
                yield batch
            if before is None:
                yield pa.RecordBatch.from_pylist([], reader.schema)
        except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:  # the middle ones from in the answer
            if isinstance(error, MemoryError) or "Out of Memory Error" in str(error):
                raise UserError(f"query: takes more than {_gigabytes(memory_limit())} of memory; {FEWER}") from None
            if "reading the stream registered as" in str(error) or (
                    isinstance(error, OSError) and not _DUCKDB.match(str(error))):
                raise OSError(str(error)) from None  # not the statement's fault
            raise _plain(tables, error) from None


def _stoppable(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """``work()``, in a thread, which is stopped where this one is interrupted."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # whatever it is, it belongs to whoever waits
            done.set_exception(error)

    thread = threading.Thread(target=run, name="query", daemon=True)
    try:
        thread.start()
        return done.result()
    except BaseException:
        until = time.monotonic() + PATIENCE
        while not done.done() and time.monotonic() < until:
            connection.interrupt()  # again: a statement that has not begun yet forgets it
            wait([done], timeout=0.05)
        if done.done():
            thread.join()
        raise


@contextlib.contextmanager
def _connect(tables: Tables, spill: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with the tables as views, then locked."""
    import duckdb

    room = min(SPILL, shutil.disk_usage(spill).free // 2)
    connection = duckdb.connect(config={
        "python_enable_replacements": "false", "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false", "temp_directory": spill, "max_temp_directory_size": f"{room}B",
        "memory_limit": f"{memory_limit()}B"})
    datasets = {name: tables.rows(name) for name in TABLES}

    def lock() -> None:
        for name, rows in datasets.items():
            connection.register(name, rows)
        for setting in ("TimeZone = 'UTC'", "enable_progress_bar = false",  # printed among the rows of what is slow
                        "enable_external_access = false", "lock_configuration = true"):
            connection.execute(f"SET {setting}")

    with connection:
        _stoppable(connection, lock)  # in this thread DuckDB would make an interrupt an error of its own
        yield connection


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


def _plain(tables: Tables, error: Exception) -> UserError:
    """What DuckDB said, on one line; for an unknown name, the nearest of those there are."""
    unknown = _UNKNOWN.search(str(error))
    if unknown is None:
        return UserError(f"query: {_line(error)}")
    what, name = (group for group in unknown.groups() if group)
    if what != "Table":
        return UserError(f"query: no column called {name!r}; {_nearest(tables, name)}")
    return UserError(f"query: no table called {name!r}; {did_you_mean(name, TABLES)}")


def _nearest(tables: Tables, name: str) -> str:
    """The columns whose names are most like it, with the tables that they are in."""
    places: dict[str, list[str]] = {}
    for table in TABLES:
        for column in tables.rows(table).schema.names:
            places.setdefault(column, []).append(table)
    said = ", ".join(f"{column} (in {', '.join(places[column])})" for column in nearest(name, places, NEAREST))
    return f"the nearest are {said}; DESCRIBE trials lists those of a table"


def _line(error: Exception) -> str:
    """The first line of DuckDB's message, without the kind of error before it."""
    first = str(error).splitlines()[0]
    return re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", first)


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.2g} GiB"
