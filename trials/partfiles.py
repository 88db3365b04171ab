"""The Parquet files of a results folder: which are parts, what their footers say, and whether they belong together.

The parts of one number, one a table, hold the same trials. The trials part, written last, notes how many rows the other
three hold for it, and all four carry the name of their group, given when the number was begun. So a part that is
missing, old, swapped, renamed or copied is noticed from footers alone, by the writer and by every reader alike. The
others may hold more than is noted: rows of a commit under way, or of one that was cut short.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from trials import checksums
from trials.errors import UserError
from trials.records import SCHEMA_VERSION, TABLES, VERSION_KEY

ROWS = "phasesweep.rows"  # in a trials part: how many rows the parts of the same number have
GROUP = "phasesweep.group"  # in every part, the same in the four of a number; older ones have none
# A column that a table has, and no other one.
_OWN = {"trials": "status", "steps": "elapsed", "layers": "kind", "spectra": "eigenvalues"}
# What reading a file raises when its bytes are not what they should be.
READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
FIX = "run the study again: it repairs the results and runs the lost trials again"
_TAIL = 1 << 16  # bytes that hold most footers, so that one request gets them
_ATTEMPTS = 5  # at a folder that is being written to


@dataclass(frozen=True)
class Footer:
    """What the footer of a part says; ``group`` and ``siblings`` are empty in parts of older versions."""

    path: str
    schema: pa.Schema
    rows: int
    group: str
    siblings: Mapping[str, int]


def name(table: str, number: int) -> str:
    """The file name of a part, below the results folder."""
    return f"{table}/part-{number:05d}.parquet"


def listed(filesystem: pafs.FileSystem, root: str, table: str, shown: str = "") -> dict[int, str]:
    """The paths of a table's parts by number, ascending; none where it has no folder.

    Raises UserError for anything there that is no part of ours: other readers would take it for one, a copy above all.
    """
    folder, place = f"{root}/{table}", f"{shown or root}/{table}"
    try:
        files = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    except NotADirectoryError:
        raise UserError(f"{place}: a file where the folder of a table should be; move it away") from None
    if os.path.islink(folder) and not os.path.exists(folder):  # to a disk that is not there just now, say
        raise UserError(f"{place}: a link that leads nowhere; bring back what it leads to, or move it away")
    found = {}
    for file in files:
        number = re.sub(r"\Apart-([0-9]{5,18})\.parquet\Z", r"\1", file.base_name)
        if file.type == pafs.FileType.File and number.isascii() and number.isdigit() and (
                file.base_name == f"part-{int(number):05d}.parquet"):
            found[int(number)] = file.path
        elif file.base_name[0] not in "._":  # what Parquet readers skip too
            what = {pafs.FileType.Directory: "is a folder", pafs.FileType.NotFound: "leads nowhere"}.get(
                file.type, "is not a part of this study")
            raise UserError(f"{place}: {file.base_name} {what}; move it away, or choose another results=PATH")
    return dict(sorted(found.items()))


def footers(filesystem: pafs.FileSystem, paths: Mapping[int, str], table: str) -> dict[int, Footer]:
    """The footers of a table's parts by number; parts that are gone by now are left out. Raises UserError for a damaged
    part, another schema version, and a part of another table."""
    with ThreadPoolExecutor(max_workers=16) as pool:  # on an object store each is a round trip
        found = pool.map(lambda path: _footer(filesystem, path, table), paths.values())
        return {number: footer for number, footer in zip(paths, found, strict=True) if footer is not None}


def check(filesystem: pafs.FileSystem, root: str, shown: str = "") -> None:
    """Read the footers of all four tables. Raises UserError, which names the first part that is damaged, or does not
    belong to the others; never for what a writer does meanwhile."""
    def read(table: str) -> dict[int, Footer]:
        return footers(filesystem, listed(filesystem, root, table, shown), table)

    for _ in range(_ATTEMPTS):
        trials = read("trials")
        others = {table: read(table) for table in TABLES if table != "trials"}
        wrong = disagreement(trials, others, root)
        if wrong is None:
            return
        if read("trials") == trials:
            raise UserError(f"{wrong}; {FIX}")
    raise UserError(f"{shown or root}: cannot be read, it is being written to; try again")


def disagreement(trials: Mapping[int, Footer], others: Mapping[str, Mapping[int, Footer]], root: str) -> str | None:
    """What is wrong with ``others``, some of the other tables, by the trials parts; None where nothing is."""
    first: dict[str, str] = {}
    for footer in trials.values():
        if footer.group and first.setdefault(footer.group, footer.path) != footer.path:
            return f"{footer.path}: holds the trials of {first[footer.group]} again, it is a copy; move it away"
    last = max((number for parts in (trials, *others.values()) for number in parts), default=0)
    for table, parts in others.items():
        for number, part in parts.items():
            if number not in trials and not may_be_torn(number, last, part.rows):
                return f"{root}/{name('trials', number)}: is missing"
        for number, footer in trials.items():
            if (wrong := mismatch(footer, parts.get(number), table)) is not None:
                return f"{root}/{name(table, number)}: {wrong}"
    return None


def may_be_torn(number: int, last: int, rows: int) -> bool:
    """Whether parts without their trials part may be the beginning of a commit: the first number is begun without rows,
    any other after those before it."""
    return number == last and (number > 0 or rows == 0)


def mismatch(trials: Footer, part: Footer | None, table: str) -> str | None:
    """What is wrong with the part of another table that has the number of a trials part; None where nothing is, or
    nothing is noted."""
    if table not in trials.siblings:
        return None
    if part is None:
        return "is missing"
    if trials.group and part.group and trials.group != part.group:
        return "holds other trials than the trials part of its number"
    if part.rows < trials.siblings[table]:
        return f"has {part.rows} rows of its trials instead of {trials.siblings[table]}"
    return None


def wrong_table(schema: pa.Schema, table: str) -> str | None:
    """The table that a schema is of, if it is not ``table``."""
    found = [other for other, column in _OWN.items() if column in schema.names]
    return found[0] if found and table not in found else None


def describe(path: str, file: pq.ParquetFile) -> Footer:
    """The footer of an open file. Raises ValueError where its notes are not in order."""
    notes = file.metadata.metadata or {}
    siblings = json.loads(notes.get(ROWS.encode(), b"{}"))
    if not isinstance(siblings, dict) or not all(isinstance(rows, int) for rows in siblings.values()):
        raise ValueError("its notes are not in order")
    return Footer(path, file.schema_arrow, file.metadata.num_rows, notes.get(GROUP.encode(), b"").decode(), siblings)


def damaged(path: str, error: Exception) -> UserError:
    """What to say of a part whose bytes are not what was written."""
    return UserError(f"{path}: damaged part ({_line(error)}); {FIX}")


def twice(place: str, trials: int) -> UserError:
    """What to say of trials that several parts have."""
    return UserError(f"{place}: {trials:,} trials are there twice, in parts copied from others; move the copies away, "
                     "or run the study again: it removes them")


def _footer(filesystem: pafs.FileSystem, path: str, table: str) -> Footer | None:
    """The footer of a part; None if it is gone by now (set aside by a repair)."""
    try:
        tail, size = _tail(filesystem, path)
        if checksums.footer_intact(tail) is False:
            raise damaged(path, ValueError("its checksum differs"))
        file = pq.ParquetFile(pa.BufferReader(tail))
        if size < (least := _least_size(file.metadata)):
            raise damaged(path, ValueError(f"{least - size} bytes of it are missing"))
        footer = describe(path, file)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {_line(error)}") from None
    except (*READ_ERRORS, ValueError) as error:
        raise damaged(path, error) from None
    version = (footer.schema.metadata or {}).get(VERSION_KEY)
    if version is None:
        raise UserError(f"{path}: not written by phasesweep; move it out of the results folder")
    if version != str(SCHEMA_VERSION).encode():
        raise UserError(f"{path}: has schema version {version.decode()}, this phasesweep reads {SCHEMA_VERSION}; "
                        "read it with the version that wrote it, or run the study into another results folder")
    if (other := wrong_table(footer.schema, table)) is not None:
        raise UserError(f"{path}: holds the table {other}, not {table}; move it back, or {FIX}")
    return footer


def _least_size(footer: pq.FileMetaData) -> int:
    """Bytes of a file with this footer: its columns, one after the other, and the footer between two marks of 4 bytes,
    the last with the footer's length."""
    ends = [4]
    for column in (footer.row_group(i).column(j) for i in range(footer.num_row_groups)
                   for j in range(footer.num_columns)):
        starts = (column.dictionary_page_offset, column.data_page_offset)
        ends.append(min((each for each in starts if each), default=0) + column.total_compressed_size)
    return max(ends) + int(footer.serialized_size) + 8


def _tail(filesystem: pafs.FileSystem, path: str) -> tuple[bytes, int]:
    """The end of a file, the whole footer in it, and how large the file is."""
    with filesystem.open_input_file(path) as file:
        size = file.size()
        tail: bytes = file.read_at(min(size, _TAIL), max(0, size - _TAIL))
        if (missing := -checksums.footer_start(tail)) > 0 and missing <= size - len(tail):
            tail = file.read_at(missing, size - len(tail) - missing) + tail
    return tail, size


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
