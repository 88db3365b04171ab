"""The results of a study: four tables of Parquet parts that only ever hold whole trials.

There is one writer (see ``lease``). A commit adds its rows to the last part of each table by replacing it, the trials
part at the end, so that readers see no trial twice and none in halves for long: a trial is there when its row in
``trials`` is. Files grow with the volume of data, not with the number of commits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import evolve, parts
from orchestrator.folder import Folder
from orchestrator.repair import repair
from trials import partfiles
from trials.records import COLUMNS, TABLES, Rows

# A part is begun anew once the tables of the last one together take more memory than this. Each commit rewrites it,
# which at this size takes about 50 ms; a hundred thousand trials of 100 kB make some six hundred parts.
PART_BYTES = 16 * 2**20


class Store:
    """A study's results, opened for writing.

    ``statuses`` maps the id of every committed trial to its status, ``warnings`` has a line for each repair that
    opening made, ``schemas`` are those of the tables as stored.
    """

    def __init__(self, folder: Folder, schemas: Mapping[str, pa.Schema], statuses: Mapping[int, Mapping[str, str]],
                 warnings: list[str]) -> None:
        self.folder, self.schemas, self.warnings = folder, schemas, warnings
        self.statuses = {key: status for part in statuses.values() for key, status in part.items()}
        self._number_of = {key: number for number, part in statuses.items() for key in part}
        if statuses:
            self._number = max(statuses)
            self._last, self._group = parts.load_all(folder, self._number)
        else:  # so that every table can be read from the start
            self._number, self._last, self._group = 0, self._empty(), parts.new_group()
            parts.save(folder, 0, self._last, reversed(TABLES), self._group)

    @classmethod
    def open(cls, folder: Folder, schemas: Mapping[str, pa.Schema]) -> Store:
        """Open (or begin) a store whose tables have at least the columns of ``schemas``, see ``records.schemas``.

        Checks every part, sweeps what a crash left, sets damaged parts aside, and adds missing columns: config
        columns with the values of each trial, others null. Columns that only the store has are kept. Raises UserError,
        with nothing touched, if the folder holds another schema version, other files, or conflicting types.
        """
        repaired = repair(folder, schemas)
        return cls(folder, repaired.schemas, repaired.statuses, repaired.warnings)

    @property
    def axes(self) -> list[str]:
        """The config columns that all four tables carry."""
        own = {column.name for column in COLUMNS["steps"]}
        return [name for name in self.schemas["steps"].names if name not in own]

    def commit(self, rows: Rows) -> None:
        """Add trials; on return they are on disk. Those already committed, or twice in ``rows``, are ignored.

        If it raises UserError (a full disk) none of them is committed, and a later commit works.
        """
        new = self._new(rows)
        if not new["trials"].num_rows:
            return
        number, last, group = self._number, self._last, self._group
        if sum(table.nbytes for table in last.values()) > PART_BYTES:
            number, last, group = number + 1, self._empty(), parts.new_group()
        tables = {table: pa.concat_tables([last[table], new[table]]).combine_chunks() for table in TABLES}
        # A part that would stay as it is is not written, but the trials' part, which makes the commit, always is.
        changed = [table for table in reversed(TABLES)
                   if new[table].num_rows or table == "trials" or number != self._number]
        parts.save(self.folder, number, tables, changed, group)
        self._number, self._last, self._group = number, tables, group
        for key, status in zip(*(new["trials"][name].to_pylist() for name in ("trial_id", "status")), strict=True):
            self.statuses[key], self._number_of[key] = sys.intern(status), number

    def discard(self, trial_ids: Iterable[str]) -> None:
        """Remove trials from all tables, such as failed ones that are to be tried again; unknown ids are ignored."""
        by_number: dict[int, list[str]] = {}
        for key in {key for key in trial_ids if key in self.statuses}:
            by_number.setdefault(self._number_of[key], []).append(key)
        for number, keys in by_number.items():
            left = parts.drop(self.folder, number, keys)
            if number == self._number:
                self._last = left
            for key in keys:
                del self.statuses[key], self._number_of[key]

    def _empty(self) -> dict[str, pa.Table]:
        return {table: self.schemas[table].empty_table() for table in TABLES}

    def _new(self, rows: Rows) -> dict[str, pa.Table]:
        """The rows of trials not yet committed, each once, in the schemas of the store."""
        ids = [key for key in dict.fromkeys(rows.ids) if key not in self.statuses]
        tables = {table: parts.of_trials(rows.tables[table], pa.array(ids, pa.string())) for table in TABLES}
        if tables["trials"].num_rows > len(ids):
            tables = {table: _once(rows) for table, rows in tables.items()}
        return {table: evolve.conform(tables[table], self.schemas[table], tables["trials"], self.folder.display(table))
                for table in TABLES}


def read_trials(folder: Folder, columns: list[str], skip_damaged: bool = False) -> pa.Table:
    """These columns of the trials table, also while a driver writes; it repairs nothing.

    A part without a column gives nulls, a column that no part has is left out, and where there are no trials yet
    there are no columns. Raises UserError for a damaged part, unless those are to be skipped.
    """
    found = [pa.table({})]
    for file in _trials_parts(folder, skip_damaged):
        found.append(file.read(columns=[name for name in file.schema_arrow.names if name in columns]))
    result = pa.concat_tables(found, promote_options="permissive")
    return result.select([name for name in columns if name in result.column_names])


def committed(folder: Folder) -> dict[str, str]:
    """The status of every committed trial by id, without opening the store; empty where there is none."""
    table = read_trials(folder, ["trial_id", "status"])
    found = dict(zip(*(column.to_pylist() for column in table.columns), strict=True)) if table.num_columns else {}
    if len(found) < table.num_rows:
        raise partfiles.twice(folder.shown, table.num_rows - len(found))
    return found


def _trials_parts(folder: Folder, skip_damaged: bool) -> Iterator[pq.ParquetFile]:
    for number, tables in parts.find(folder).items():
        try:
            if "trials" in tables:
                yield parts.load(folder, "trials", number)
        except parts.Damaged as error:
            if not skip_damaged:
                raise parts.needs_repair(folder, "trials", number, error) from error


def _once(table: pa.Table) -> pa.Table:
    """The first row of every trial, step and layer."""
    keys = [name for name in ("trial_id", "step", "layer") if name in table.column_names]
    numbered = table.select(keys).append_column("place", pa.array(range(table.num_rows), pa.int64()))
    first = numbered.group_by(keys).aggregate([("place", "min")])["place_min"]
    return table.take(first.sort())
