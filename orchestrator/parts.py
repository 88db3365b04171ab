"""One part of a results table: a Parquet file that carries its schema version and checksums of all its bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.folder import Folder
from trials import checksums, partfiles
from trials.errors import UserError
from trials.partfiles import GROUP, ROWS, Footer
from trials.partfiles import name as name
from trials.records import SCHEMA_VERSION, TABLES, VERSION_KEY


class Damaged(Exception):
    """A part that is not what was written; the message says how."""


def find(folder: Folder) -> dict[int, set[str]]:
    """The numbers of all parts, ascending, with the tables that have one.

    Raises UserError if a table's folder holds files that are not ours.
    """
    found: dict[int, set[str]] = {}
    for table in TABLES:
        with folder.plainly("list", table):
            paths = partfiles.listed(folder.filesystem, folder.root, table, folder.display(""))
        for number in paths:
            found.setdefault(number, set()).add(table)
    return dict(sorted(found.items()))


def check(folder: Folder) -> None:
    """Raise UserError if a part is damaged, missing or misplaced, as far as the footers of all tables tell."""
    with folder.plainly("read", ""):
        partfiles.check(folder.filesystem, folder.root, folder.display(""))


def new_group() -> str:
    """A name for the parts of a number that is begun."""
    return uuid4().hex[:16]


def encode(table: pa.Table, siblings: Mapping[str, int] | None = None, group: str = "") -> bytes:
    """The bytes of a part; ``siblings`` are the row counts a trials part keeps of the other three."""
    sink = pa.BufferOutputStream()
    # Dictionaries of measured numbers never pay: they cost four fifths of the time to write.
    words = [field.name for field in table.schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(sink, table.schema, compression="zstd", use_dictionary=words,
                          write_page_checksum=True) as writer:
        writer.write_table(table)
        if siblings is not None:
            writer.add_key_value_metadata({ROWS: json.dumps(dict(siblings))})
        if group:
            writer.add_key_value_metadata({GROUP: group})
        writer.add_key_value_metadata(checksums.BLANKS)
    return checksums.sealed(sink.getvalue().to_pybytes())


def load(folder: Folder, table: str, number: int) -> pq.ParquetFile:
    """Read a part and check every byte of it.

    Raises Damaged if it is missing or not what was written, and UserError if it is of another schema version or of
    another origin.
    """
    try:
        data = folder.read(name(table, number))
        # A copy that Arrow owns: its threads let go of what they have read a little late, and if that is an object of
        # Python's while the interpreter ends, the process aborts.
        owned = pa.BufferOutputStream()
        owned.write(data)
        file = pq.ParquetFile(pa.BufferReader(owned.getvalue()))
    except FileNotFoundError:
        raise Damaged("is missing") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged("is not readable as Parquet") from error
    intact = checksums.file_intact(data)
    if intact is False:
        raise Damaged("is damaged (its checksum differs)")
    version = (file.metadata.metadata or {}).get(VERSION_KEY)
    if version != str(SCHEMA_VERSION).encode():
        what = f"has schema version {version.decode(errors='replace')}" if version else "has no schema version"
        raise UserError(f"{folder.display(name(table, number))} {what}, this phasesweep writes {SCHEMA_VERSION}; "
                        "choose another results=PATH, or remove the folder")
    if intact is None:
        raise Damaged("is damaged (its checksum is missing)")
    try:
        footer(folder, table, number, file)
    except ValueError as error:
        raise Damaged(f"is damaged ({error})") from None
    if (other := partfiles.wrong_table(file.schema_arrow, table)) is not None:
        raise Damaged(f"holds the table {other}")
    return file


def footer(folder: Folder, table: str, number: int, file: pq.ParquetFile) -> Footer:
    """What the footer of a part says."""
    return partfiles.describe(folder.path(name(table, number)), file)


def load_all(folder: Folder, number: int) -> tuple[dict[str, pa.Table], str]:
    """The parts of one number, a table each, and the name that they have in common, which is empty for those of older
    versions. Raises UserError if one is damaged."""
    tables, group = {}, ""
    for table in TABLES:
        try:
            file = load(folder, table, number)
            tables[table] = file.read()
        except Damaged as error:
            raise needs_repair(folder, table, number, error) from error
        if table == "trials":
            group = footer(folder, table, number, file).group
    return tables, group


def save(folder: Folder, number: int, tables: Mapping[str, pa.Table], order: Iterable[str], group: str) -> None:
    """Replace the parts of one number, one after the other in ``order``."""
    siblings = {table: tables[table].num_rows for table in TABLES if table != "trials"}
    for table in order:
        folder.write(name(table, number), encode(tables[table], siblings if table == "trials" else None, group))


def drop(folder: Folder, number: int, trial_ids: Iterable[str], copied: bool = False) -> dict[str, pa.Table]:
    """Remove trials from the parts of one number and return what is left. Parts that are ``copied`` from another number
    become a group of their own.

    The trials part goes first: if this is cut short, the others hold rows without a trial, which a repair removes.
    """
    tables, group = load_all(folder, number)
    ids = tables["trials"]["trial_id"].combine_chunks()
    kept = ids.filter(pc.invert(pc.is_in(ids, value_set=pa.array(trial_ids, pa.string()))))
    left = {table: of_trials(rows, kept) for table, rows in tables.items()}
    save(folder, number, left, TABLES, new_group() if copied else group)
    return left


def of_trials(table: pa.Table, trial_ids: pa.Array) -> pa.Table:
    """The rows of ``table`` that belong to these trials."""
    return table.filter(pc.is_in(table["trial_id"], value_set=trial_ids))


def needs_repair(folder: Folder, table: str, number: int, error: Damaged) -> UserError:
    """What to tell whoever only reads."""
    return UserError(f"{folder.display(name(table, number))} {error}; the next 'phasesweep run' of this study sets it "
                     "aside and runs its trials again")
