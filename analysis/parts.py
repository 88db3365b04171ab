"""The Parquet parts of one table as one lazy Arrow dataset: unified schema, checked version, damage named.

What is read of a part is checked, its footer and each page (see trials/checksums.py); what is not read costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from trials import partfiles
from trials.errors import UserError
from trials.partfiles import READ_ERRORS, Footer, damaged

_CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True))


@dataclass(frozen=True)
class Parts:
    """The ``part-*.parquet`` files of one table: their footers, in order of number.

    A running study replaces its last part at every commit. So the footers read here are not those a scan goes by: a
    scan opens each file once more and sees one state of it, whole.
    """

    filesystem: pafs.FileSystem
    footers: Mapping[int, Footer]

    @classmethod
    def find(cls, filesystem: pafs.FileSystem, root: str, table: str) -> Parts:
        """List the parts of a table (one that has no folder has none) and read their footers.

        Raises UserError for a damaged part, another schema version, and what is no part of the table.
        """
        return cls(filesystem, partfiles.footers(filesystem, partfiles.listed(filesystem, root, table), table))

    @property
    def paths(self) -> list[str]:
        """Of the files, in order of number."""
        return [footer.path for footer in self.footers.values()]

    @property
    def schemas(self) -> list[pa.Schema]:
        """That each was written with."""
        return [footer.schema for footer in self.footers.values()]

    def dataset(self, also: pa.Schema | None = None) -> ds.Dataset:
        """All rows, lazily; a column that only some parts have, or that is in ``also`` alone, is null in the others.

        Raises UserError where the types of a column do not go together.
        """
        try:
            schema = pa.unify_schemas([*self.schemas, *([also] if also else [])], promote_options="permissive")
        except pa.ArrowTypeError as error:
            raise UserError(f"{self.paths[0]} ...: parts do not go together: {' '.join(str(error).split())}; "
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
                raise damaged(path, error) from None
