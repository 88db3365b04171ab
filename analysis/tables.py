"""A study's results as DataFrames, read when first asked for, and right while a run is still writing them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from analysis.parts import Parts
from trials import partfiles, storage
from trials.errors import UserError, did_you_mean
from trials.partfiles import READ_ERRORS, Footer, mismatch
from trials.records import COLUMNS, TABLES, schemas

T = TypeVar("T")


class Frames(ABC):
    """``trials``, ``steps``, ``layers`` and ``spectra`` as DataFrames, read at first use and kept."""

    place: str  # where they are, for messages

    @property
    @abstractmethod
    def name(self) -> str:
        """What to call them."""

    @property
    @abstractmethod
    def axes(self) -> list[str]:
        """The swept axes; ``seed`` is one of them where it is replicated."""

    @abstractmethod
    def table(self, name: str, columns: Sequence[str] | None = None,
              filter: pc.Expression | None = None) -> pd.DataFrame:
        """Some columns (all by default) and rows of one table."""

    @abstractmethod
    def schema(self, name: str) -> pa.Schema:
        """The columns of one table."""

    @abstractmethod
    def of(self, trials: pd.DataFrame) -> Frames:
        """The same with those trials only, given as rows of ``trials``."""

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row a trial: configuration, status, final numbers."""
        return self.table("trials")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """A row a trial and measured step."""
        return self.table("steps")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """A row a trial, step and layer: the spectral metrics."""
        return self.table("layers")

    @cached_property
    def spectra(self) -> pd.DataFrame:
        """A row a trial, step and layer: ``eigenvalues`` as an array, descending."""
        return self.table("spectra")


@dataclass(frozen=True)
class Tables(Frames):
    """The four tables of one study, with the trials that had finished when ``load`` was called.

    ``table`` reads a choice of columns and rows. A run commits the trials part last, so rows of the other tables count
    only where their trial is among ``ids`` and their part has its trials part: those of a commit under way or torn, and
    of later trials, are left out.
    """

    place: str
    filesystem: pafs.FileSystem = field(repr=False)
    root: str = field(repr=False)
    ids: pa.Array = field(repr=False)
    noted: Mapping[int, Footer] = field(default_factory=dict, repr=False)  # the trials parts when it was loaded
    swept: frozenset[str] | None = field(default=None, repr=False)  # the axes; None: as the files say

    def only(self, trial_ids: Collection[str], axes: Collection[str]) -> Tables:
        """Those of these trials that are here, as a study over ``axes``: a folder may hold what was run with other
        settings too, and no claim is about that."""
        ids = self.ids.filter(pc.is_in(self.ids, value_set=pa.array(trial_ids, pa.string())))
        return replace(self, ids=ids, swept=frozenset(axes))

    def of(self, trials: pd.DataFrame) -> Tables:
        return replace(self, ids=pa.array(trials["trial_id"], pa.string()))

    @cached_property
    def name(self) -> str:
        """The study's name: that of its folder."""
        return self.root.rsplit("/", 1)[-1]

    @cached_property
    def axes(self) -> list[str]:
        """The swept axes, in the order of the columns of the newest part."""
        swept = {item.name: None for schema in reversed(self.parts("trials").schemas) for item in schema
                 if (item.name in self.swept if self.swept is not None else
                     (item.metadata or {}).get(b"description") == b"axis of the study")}
        return list(swept)

    def table(self, name: str, columns: Sequence[str] | None = None,
              filter: pc.Expression | None = None) -> pd.DataFrame:
        """Some columns (all by default) and rows of one table; only they are read from the files. Swept axes that are
        text come as categories, in alphabetical order.

        ``filter`` is an Arrow expression, as in ``pyarrow.compute.field("layer") == "fc1"``. Raises UserError for an
        unknown table or column, a filter that does not fit the types, and a damaged part.
        """
        if name not in TABLES:
            raise UserError(f"{self.place}: no table called {name!r}; {did_you_mean(name, TABLES)}")

        def read() -> pa.Table:
            rows = self.rows(name)
            for column in columns or ():
                if column not in rows.schema.names:
                    raise UserError(f"{self.place}: no column called {column!r} in {name}; "
                                    f"{did_you_mean(column, rows.schema.names)}")
            try:
                scanner = rows.scanner(columns=columns, filter=filter)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError) as error:
                raise UserError(f"{self.place}: filter on {name}: {str(error).splitlines()[0]}") from None
            return scanner.to_table()

        frame: pd.DataFrame = self.settled(read, name).to_pandas()
        for axis in self.axes:
            if axis in frame and pd.api.types.is_string_dtype(frame[axis]):
                frame[axis] = frame[axis].astype("category")
        return frame

    def schema(self, name: str) -> pa.Schema:
        return self.rows(name).schema

    def rows(self, name: str) -> ds.Dataset:
        """The rows of one table as a lazy Arrow dataset.

        An axis that some parts lack (it has just been added to the study) is filled in from ``trials``, in memory.
        """
        parts = self.parts(name)
        if not parts.paths:  # such as spectra that were not measured
            types = {column.name: column.type for schema in self.parts("trials").schemas for column in schema}
            return ds.dataset(schemas(types, self.axes)[name].empty_table())
        today = pa.schema([column.field for column in COLUMNS[name]])  # null where an older version wrote a part
        rows = parts.dataset(today).filter(pc.field("trial_id").isin(self.ids))
        late = [axis for axis in self.axes if any(axis not in schema.names for schema in parts.schemas)]
        if name == "trials" or not late:
            return rows
        return ds.dataset(_fill(rows.to_table(), self.rows("trials").to_table(columns=["trial_id", *late])))

    def parts(self, name: str) -> Parts:
        """The files of one table as they are now. Raises UserError where they are not those of the trials here."""
        found = Parts.find(self.filesystem, self.root, name)
        if any(mismatch(trials, found.footers.get(number), name) for number, trials in self.noted.items()):
            partfiles.check(self.filesystem, self.root)  # unless a run has just replaced them
            found = Parts.find(self.filesystem, self.root, name)
        if name == "trials":
            return found
        # One without its trials part is of a commit under way or cut short, or was put there by somebody.
        return replace(found, footers={number: found.footers[number] for number in found.footers
                                       if number in self.noted})

    def settled(self, read: Callable[[], T], *names: str) -> T:
        """``read()``, again if a part of these tables was replaced under its hands; damage raises UserError."""
        for _ in range(5):
            try:
                return read()
            except READ_ERRORS as error:
                cause = error
                for name in names:
                    self.parts(name).check()
        raise UserError(f"{self.place}: cannot be read: {str(cause).splitlines()[0]}; try again")


def load(path: str | os.PathLike[str]) -> Tables:
    """Open the results folder of a study: a local path or any URI that pyarrow knows (``s3://``, ``gs://`` ...).

    Raises UserError if there is no such folder, it is not a study's, no trial has finished yet, it was written with
    another schema version, or a part is damaged.
    """
    place = storage.masked(path)
    try:
        filesystem, root = storage.locate(path)
        _check_folder(filesystem, root, place)
        unread = Tables(place, filesystem, root, pa.array([], pa.string()))

        def read_ids() -> tuple[pa.Array, Mapping[int, Footer]]:
            parts = unread.parts("trials")
            _check_numbers(filesystem, root, parts.footers)
            ids = pa.array([], pa.string())
            if parts.paths:
                ids = parts.dataset().to_table(columns=["trial_id"])["trial_id"].combine_chunks()
            return ids, parts.footers

        ids, noted = unread.settled(read_ids, "trials")
    except OSError as error:
        raise UserError(f"{place}: cannot be read: {str(error).splitlines()[0]}; check the path and the storage behind "
                        "it") from None
    if not len(ids):
        raise UserError(f"{place}: no trial has finished yet; run the study, or look again later")
    if again := len(ids) - pc.count_distinct(ids).as_py():
        raise partfiles.twice(place, again)
    return replace(unread, ids=ids, noted=noted)


def axes(tables: Tables) -> list[str]:
    """The swept axes of a study, in the order of the columns; ``seed`` is one of them where it is replicated."""
    return tables.axes


def _check_folder(filesystem: pafs.FileSystem, root: str, place: str) -> None:
    above, _, name = root.rpartition("/")
    if filesystem.get_file_info(root).type != pafs.FileType.Directory:
        near = did_you_mean(name, _folders(filesystem, above))
        raise UserError(f"{place}: no such results folder; {near if near.startswith('did') else 'run the study first'}")
    marks = filesystem.get_file_info([f"{root}/{mark}" for mark in (*TABLES, "study.yaml")])
    if all(mark.type == pafs.FileType.NotFound for mark in marks):
        studies = [inner for inner in _folders(filesystem, root) if "trials" in _folders(filesystem, f"{root}/{inner}")]
        fix = f"give one of the studies in it: {', '.join(studies)}" if studies else "it has no tables in it"
        raise UserError(f"{place}: not the results folder of a study; {fix}")


def _check_numbers(filesystem: pafs.FileSystem, root: str, trials: Mapping[int, Footer]) -> None:
    """Raise UserError where parts are missing or too many, by the names of the files alone; the footers of the other
    tables are looked at when these are asked for."""
    for table in TABLES[1:]:
        numbers = partfiles.listed(filesystem, root, table)
        missing = any(table in footer.siblings and number not in numbers for number, footer in trials.items())
        if missing or numbers.keys() - trials.keys():
            return partfiles.check(filesystem, root)  # which knows what a run does meanwhile
    if len({footer.group for footer in trials.values() if footer.group}) < sum(
            bool(footer.group) for footer in trials.values()):
        partfiles.check(filesystem, root)
    return None


def _folders(filesystem: pafs.FileSystem, root: str) -> list[str]:
    inside = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))
    return sorted(item.base_name for item in inside if item.type == pafs.FileType.Directory)


def _fill(rows: pa.Table, trials: pa.Table) -> pa.Table:
    """``rows`` with the columns of ``trials`` by trial_id, in place of what they have of these."""
    places = pc.index_in(rows["trial_id"], value_set=trials["trial_id"])
    for axis in trials.column_names[1:]:
        if axis in rows.column_names:
            rows = rows.drop_columns(axis)
        rows = rows.add_column(1, trials.schema.field(axis), trials[axis].take(places))
    return rows
