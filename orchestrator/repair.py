"""Bring a results folder into order before it is written to.

The parts of one number, one a table, belong together. A commit writes the trials part last, so what the others hold
beyond it was cut short and is removed. A part that is damaged or missing takes the trials of its number with it: all
four parts are set aside, and those trials run again.

Every byte of every part is read and checked, a part at a time: about a second for each gigabyte on a local disk.
Anything less would leave a damaged part of a finished study unnoticed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator import evolve, parts
from orchestrator.folder import Folder
from orchestrator.parts import Damaged
from trials.partfiles import Footer, may_be_torn, mismatch
from trials.records import TABLES

ASIDE = ".damaged"  # hidden from Parquet readers


@dataclass
class Group:
    """What is found at one part number."""

    number: int
    tables: set[str]  # that have a part
    schemas: dict[str, pa.Schema] = field(default_factory=dict)  # of the sound parts
    statuses: dict[str, str] = field(default_factory=dict)  # of its trials, by id
    orphans: dict[str, int] = field(default_factory=dict)  # rows without a trial, by table
    problems: list[str] = field(default_factory=list)
    torn: bool = False  # the beginning of a commit that was cut short


@dataclass(frozen=True)
class Repaired:
    """A folder in order: its trials' statuses by id and part number, the schemas, and a line for each repair."""

    statuses: dict[int, dict[str, str]]
    schemas: dict[str, pa.Schema]
    warnings: list[str]


def repair(folder: Folder, wanted: Mapping[str, pa.Schema]) -> Repaired:
    """Sweep, set aside, and bring every part to a schema that also has the ``wanted`` columns.

    Each change is one atomic replacement; if this is cut short, the next call finishes it. Raises UserError, with
    nothing touched, for another schema version, files that are not ours, or a column whose type conflicts.
    """
    found = parts.find(folder)
    groups = [_inspect(folder, number, tables, max(found)) for number, tables in found.items()]
    sound = [group for group in groups if not group.torn and not group.problems]
    schemas = evolve.targets([group.schemas for group in sound], wanted, folder.display(""))
    result = Repaired({}, schemas, [])
    folder.sweep("", *TABLES)
    seen: set[str] = set()
    for group in groups:
        if group.torn:
            result.warnings.append(f"{folder.shown}: removed what a commit that was cut short had written")
            for table in group.tables:
                folder.delete(parts.name(table, group.number))
        elif group.problems:
            result.warnings.append(_set_aside(folder, group))
        else:
            if any(group.orphans.values()):
                result.warnings.append(f"{folder.shown}: removed rows of a commit that was cut short")
            _rewrite(folder, group, schemas)
            twice = seen & group.statuses.keys()  # parts copied from elsewhere
            if twice:
                result.warnings.append(f"{folder.display(parts.name('trials', group.number))} held {len(twice)} "
                                       "trials of earlier parts again; removed")
                parts.drop(folder, group.number, twice, copied=True)
            result.statuses[group.number] = {key: status for key, status in group.statuses.items() if key not in seen}
            seen |= group.statuses.keys()
    return result


def _inspect(folder: Folder, number: int, tables: set[str], last: int) -> Group:
    """Check the parts of one number, of which ``last`` is the greatest; changes nothing."""
    group = Group(number, tables)
    ids = pa.array([], pa.string())
    trials: Footer | None = None
    for table in TABLES:  # trials is the first
        try:
            file = parts.load(folder, table, number)
        except Damaged as error:
            group.problems.append(f"{folder.display(parts.name(table, number))} {error}")
            continue
        group.schemas[table] = file.schema_arrow
        if table == "trials":
            rows = file.read(columns=["trial_id", "status"])
            ids = rows["trial_id"].combine_chunks()
            group.statuses = dict(zip(ids.to_pylist(), rows["status"].to_pylist(), strict=True))
            trials = parts.footer(folder, table, number, file)
            continue
        column = file.read(columns=["trial_id"])["trial_id"]
        owned = pc.sum(pc.is_in(column, value_set=ids)).as_py() or 0
        group.orphans[table] = len(column) - owned
        if trials is not None:
            part = replace(parts.footer(folder, table, number, file), rows=owned)
            noted = trials.siblings.get(table, owned)
            wrong = mismatch(trials, part, table) or (
                f"has {owned} rows of its trials instead of {noted}" if owned > noted else None)
            if wrong is not None:
                group.problems.append(f"{folder.display(parts.name(table, number))} {wrong}")
    rows = sum(group.orphans.values())
    group.torn = "trials" not in tables and may_be_torn(number, last, rows)
    return group


def _set_aside(folder: Folder, group: Group) -> str:
    """Move all parts of a number out of sight, sound ones too, so that nothing is lost; return the line to show."""
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for table in reversed(TABLES):  # while the trials part is there, a repair cut short is taken up again
        if table in group.tables:
            source = parts.name(table, group.number)
            folder.move(source, f"{ASIDE}/{stamp}-{source.replace('/', '-')}")
    trials = f"{len(group.statuses)} trials" if group.statuses else "its trials"
    return f"{' and '.join(group.problems)}; set aside in {folder.display(ASIDE)}, {trials} run again"


def _rewrite(folder: Folder, group: Group, schemas: Mapping[str, pa.Schema]) -> None:
    """Remove orphans from the parts of a number and bring them to ``schemas``; parts in order stay as they are."""
    stale = [table for table in TABLES
             if group.orphans.get(table) or not evolve.same(group.schemas[table], schemas[table])]
    if not stale:
        return
    tables, name = parts.load_all(folder, group.number)
    trials = tables["trials"]
    for table in TABLES:
        rows = parts.of_trials(tables[table], trials["trial_id"].combine_chunks())
        tables[table] = evolve.conform(rows, schemas[table], trials, folder.display(table))
    parts.save(folder, group.number, tables, stale, name)
