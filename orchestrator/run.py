"""Run a study, or continue it: design minus what is committed, under Ray Tune, into the store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console

from orchestrator import checkpoints, parts
from orchestrator.beforehand import rehearse
from orchestrator.folder import Folder, patiently
from orchestrator.lease import Lease
from orchestrator.progress import SweepProgress
from orchestrator.provenance import check_name, check_replaced, write_study
from orchestrator.queue import Queue
from orchestrator.shipping import components, earlier_fingerprint, fingerprint
from orchestrator.signals import Signals
from orchestrator.store import Store, committed, read_trials
from orchestrator.survey import Survey, survey, work
from search_spaces import Study
from trials import records, usercode
from trials.errors import UserError
from trials.packs.structure import structure
from trials.records import Rows
from trials.tasks import own
from trials.tasks.fingerprint import same

if TYPE_CHECKING:
    from cluster import Connection

Connect = Callable[[], "AbstractContextManager[Connection]"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the survey after it, and the signal that cut it short, if one did."""

    survey: Survey
    interrupted: signal.Signals | None


def run(study: Study, results: str, connect: Connect, console: Console, into: bool = False) -> Outcome:
    """Run what is still to do. ``connect`` is called only if there is anything. ``into`` allows a folder that another
    study was run into.

    Raises UserError (bad folder, disk full, another driver) and ClusterError; what was committed stays.
    """
    folder, tell = Folder.open(results), partial(_warn, console)
    if not into:
        check_name(study, folder)
    fresh = not read_trials(folder, ["trial_id"], skip_damaged=True).num_rows
    before = survey(study, {}, lambda trial_ids: [None] * len(trial_ids)) if fresh else None
    if before is not None:  # said before the folder is made
        check_replaced(folder)
        rehearse(before, study, tell)
    connection = connect() if fresh else None
    with Lease(folder) as lease:
        store = Store.open(folder, wanted_schemas(study, folder))
        leftovers = checkpoints.Leftovers(folder, store.statuses)
        for warning in store.warnings:
            _warn(console, warning)
        observed = Observed(folder, store.statuses)
        if before is None or store.statuses:  # going through a design of a million trials takes half a minute
            before = survey(study, store.statuses, observed)
        for line in changes(study, folder):
            _warn(console, line)
        if before.finished:
            if into:  # the same trials under another name
                write_study(study, folder, before.others > 0)
            return Outcome(before, None)
        if not fresh:
            rehearse(before, study, tell)
        if before.failed:
            store.discard(before.failed)
        if kept := write_study(study, folder, before.others > 0):
            _warn(console, kept)
        interrupted = _sweep(study, folder, store, lease, leftovers, observed, before, connection or connect(), console)
        return Outcome(survey(study, store.statuses, observed), interrupted)


def _warn(console: Console, line: str) -> None:
    console.print(line, style="yellow", markup=False, highlight=False)


def wanted_schemas(study: Study, folder: Folder) -> dict[str, pa.Schema]:
    """The study's schemas. A config value that differs from what is already stored counts as an axis too: tables in
    which it varies unseen would mix what must be told apart."""
    types, axes = study.column_types, list(study.axis_columns)
    fixed = study.base.flat()
    stored = read_trials(folder, list(types), skip_damaged=True)  # opening the store will repair what is damaged
    for name in types if stored.num_rows else ():
        values = set(stored[name].unique().to_pylist()) if name in stored.column_names else {None}
        if name not in axes and values != {fixed.get(name)}:
            axes.append(name)
    return records.schemas(types, axes)


def changes(study: Study, folder: Folder) -> list[str]:
    """What is no longer as it was when the finished trials ran, though it does not change their identity: one line
    each. They are kept; measuring them again takes another results folder."""
    stored = read_trials(folder, ["status", "measure", "code", "task", "model", "data", "config"]).to_pylist()
    finished = [row for row in stored if row["status"] in records.FINAL]  # the others run again anyway
    ran = Counter((row.get("code"), row["task"], row["model"]) for row in finished)
    earlier, lines = earlier_fingerprint(study), []
    for what, differ in (
            ("were measured under another measure: block",
             sum(row.get("measure") != study.measure.json for row in finished)),
            ("ran before your model or task file was changed, or what it imports beside it",
             sum(count for (code, *names), count in ran.items() if code not in (earlier, _code(names, code)))),
            ("ran on other data than your task gives now", sum(map(_other_data, finished)))):
        if differ:
            lines.append(f"{differ} finished trials {what}; they are kept as they are. To run them again give another "
                         "results=PATH")
    return lines


def _code(names: list[str], before: str | None) -> str | None:
    """The fingerprint that the code of a finished trial has now; what it was where there is no such code any more."""
    try:
        return usercode.fingerprint(names)
    except UserError:
        return before


def _other_data(row: Mapping[str, Any]) -> bool:
    """Whether a finished trial saw other data than its task gives now, as far as is known: rows of earlier versions do
    not tell, nor is every task of an open range looked at."""
    if row.get("data") is None:
        return False
    now = own.of(json.loads(row["config"])["task"])
    return now is not None and not same(now, row["data"])


def look(study: Study, folder: Folder) -> Survey:
    """How far a study is, by what is committed; writes and repairs nothing. Raises UserError for parts that
    are damaged, missing or not where they belong."""
    parts.check(folder)
    statuses = committed(folder)
    return survey(study, statuses, Observed(folder, statuses))


class Observed:
    """What an adaptive design may look at: the trials row of each committed trial; read again when there are more."""

    def __init__(self, folder: Folder, statuses: Mapping[str, str]) -> None:
        self._folder, self._statuses = folder, statuses
        self._rows: dict[str, Mapping[str, Any]] = {}

    def __call__(self, trial_ids: list[str]) -> list[Mapping[str, Any] | None]:
        if len(self._rows) != len(self._statuses):
            names = [column.name for column in records.COLUMNS["trials"] if pa.types.is_floating(column.type)]
            table = read_trials(self._folder, ["trial_id", "status", *names])
            self._rows = {row["trial_id"]: row for row in table.to_pylist()}
        return [self._rows.get(trial_id) for trial_id in trial_ids]


def _sweep(study: Study, folder: Folder, store: Store, lease: Lease, leftovers: checkpoints.Leftovers,
           observed: Observed, before: Survey, connection: AbstractContextManager[Connection],
           console: Console) -> signal.Signals | None:
    tell = partial(console.print, markup=False, highlight=False)
    console.print(f"{study.name}: {before.pending:,} of {before.size:,} trials to run", highlight=False)
    with Signals() as signals, SweepProgress(console, before.size, before.done) as progress, \
            _meanwhile(connection) as connected:
        # Imported here: a study that has nothing left to run must not wait for Ray.
        from orchestrator.distant import keeper
        from orchestrator.placement import Workers
        from orchestrator.sweep import Sweep
        from orchestrator.worker import Job

        while not (signals.caught or connected.done()):
            wait([connected], 0.2)
        signals.listen()
        if signals.caught:
            return signals.caught
        cluster = connected.result()
        workers = Workers(study)
        workers.check(cluster.target)
        job = Job(study.measure, store.schemas, tuple(store.axes), study.resources.cpu, study.retries,
                  study.lanes, checkpoints.SECONDS, folder.root if folder.local else folder.where, str(study.folder),
                  os.getcwd(), fingerprint(study), study.resources.seconds, keeper(folder, cluster),
                  tuple(components(study)), data=own.known())
        queue = Queue(study.trials(observed), store.statuses, partial(work, study=study), workers.slots, structure,
                      study.lanes)
        progress.doing("starting workers")

        def store_rows(rows: Rows) -> None:
            lease.check()
            own.compare(rows.tables["trials"].select(["config", "data"]).to_pylist())
            store.commit(rows)
            leftovers.tidy()

        def commit(rows: Rows) -> None:
            patiently(partial(store_rows, rows), tell)
            progress.came(rows.tables["trials"]["status"].to_pylist())

        def tick() -> None:
            progress.tick(queue.seconds(before.pending_work - queue.work_done), sweep.training)

        sweep = Sweep(queue, job, workers, commit, tick, tell, signals)
        sweep.run()
        for why, count in queue.alone.most_common():
            tell(f"{count:,} trials were trained one by one: {why}")
        leftovers.remove()
    return signals.caught


@contextlib.contextmanager
def _meanwhile(connection: AbstractContextManager[Connection]) -> Iterator[Future[Connection]]:
    """Connect in a thread of its own: Ray takes a second to start, and one to be imported."""
    # The thread ends last: Ray's processes are killed when the thread that started them is gone, and a driver whose Ray
    # went before it waits twelve seconds for it.
    with ThreadPoolExecutor(1) as thread, contextlib.ExitStack() as stack:
        connected = thread.submit(stack.enter_context, connection)
        try:
            yield connected
        finally:
            wait([connected])
