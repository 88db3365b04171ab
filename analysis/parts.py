"""The Parquet parts of one table as one lazy Arrow dataset: unified schema, checked version, damage named.

What is read of a part is checked, its footer and each page (see trials/checksums.py); what is not read costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from trials import checksums
from trials.errors import UserError
from trials.records import SCHEMA_VERSION, VERSION_KEY

# What reading a file raises when its bytes are not what they should be.
READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
TAIL = 1 << 16  # bytes that hold most footers, so that one request gets them
_CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True))


@dataclass(frozen=True)
class Parts:
    """The ``part-*.parquet`` files of one folder: their paths in order of name, and the schema each was written with.

    A running study replaces its last part at every commit. So the footers read here are not those a scan goes by: a
    scan opens each file once more and sees one state of it, whole.
    """

    filesystem: pafs.FileSystem
    paths: Sequence[str]
    schemas: Sequence[pa.Schema]

    @classmethod
    def find(cls, filesystem: pafs.FileSystem, folder: str) -> Parts:
        """List a folder (one that is not there has no parts) and read the footers.

        Raises UserError for a damaged part and for another schema version.
        """
        files = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        paths = sorted(file.path for file in files if fnmatch(file.base_name, "part-*.parquet"))
        with ThreadPoolExecutor(max_workers=16) as pool:  # on an object store each footer is a round trip
            schemas = dict(zip(paths, pool.map(lambda path: _schema(filesystem, path), paths), strict=True))
        found = {path: schema for path, schema in schemas.items() if schema is not None}
        return cls(filesystem, list(found), list(found.values()))

    def dataset(self, also: pa.Schema | None = None) -> ds.Dataset:
        """All rows, lazily; a column that only some parts have, or that is in ``also`` alone, is null in the others.

        Raises UserError where the types of a column do not go together.
        """
        try:
            schema = pa.unify_schemas([*self.schemas, *([also] if also else [])], promote_options="permissive")
        except pa.ArrowTypeError as error:
            raise UserError(f"{self.paths[0]} ...: parts do not go together: {_line(error)}; "
                            "keep each study in a results folder of its own") from None
        return ds.dataset(self.paths, schema=schema, format=_CHECKED, filesystem=self.filesystem)

    def check(self) -> None:
        """Read everything. Raises UserError naming the first part that is damaged."""
        for path, schema in zip(self.paths, self.schemas, strict=True):
            try:
                for _ in ds.dataset(path, schema=schema, format=_CHECKED, filesystem=self.filesystem).to_batches():
                    pass
            except FileNotFoundError:
                continue
            except READ_ERRORS as error:
                raise _damaged(path, error) from None


def _schema(filesystem: pafs.FileSystem, path: str) -> pa.Schema | None:
    """The schema of a part; None if it is gone by now (set aside by a repair)."""
    try:
        tail = _tail(filesystem, path)
        if checksums.footer_intact(tail) is False:
            raise _damaged(path, ValueError("its checksum differs"))
        schema = pq.read_schema(pa.BufferReader(tail))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {_line(error)}") from None
    except READ_ERRORS as error:
        raise _damaged(path, error) from None
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version is None:
        raise UserError(f"{path}: not written by phasesweep; move it out of the results folder")
    if version != str(SCHEMA_VERSION).encode():
        raise UserError(f"{path}: has schema version {version.decode()}, this phasesweep reads {SCHEMA_VERSION}; "
                        "read it with the version that wrote it, or run the study into another results folder")
    return schema


def _tail(filesystem: pafs.FileSystem, path: str) -> bytes:
    """The end of a file, the whole footer in it."""
    with filesystem.open_input_file(path) as file:
        size = file.size()
        tail: bytes = file.read_at(min(size, TAIL), max(0, size - TAIL))
        if (missing := -checksums.footer_start(tail)) > 0 and missing <= size - len(tail):
            tail = file.read_at(missing, size - len(tail) - missing) + tail
    return tail


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"{path}: damaged part ({_line(error)}); run the study again: it repairs the results and runs "
                     "the lost trials again")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
