"""Read a results folder that was harmed, beside the sound one: run as a script, in a process that may crash.

For each line on the standard input it prints, as JSON, which ways of reading refused and what the repair said. It ends
where one of them gives other data than were written, or raises anything but a UserError of one line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection

import pandas as pd

import analysis
from orchestrator import parts
from orchestrator.folder import Folder
from orchestrator.store import Store, committed
from trials.errors import UserError
from trials.records import TABLES

SQL = "SELECT count(*), max(stable_rank), min(trial_id) FROM layers WHERE lr > 0.05"


def refused(look: Callable[[], None]) -> bool:
    """Whether it raises UserError; then in one line."""
    try:
        look()
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return True
    return False


def main(sound: str, harmed: str) -> None:
    """Answer until the input ends."""
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # nobody pulls the plug here
    schemas = {name: table.schema for name, table in parts.load_all(Folder.open(sound), 0)[0].items()}
    statuses = committed(Folder.open(sound))
    written = {name: analysis.load(sound).table(name) for name in TABLES}
    asked = analysis.query(sound, SQL).to_numpy().tolist()

    def same(name: str, columns: list[str] | None = None, ids: Collection[str] = statuses) -> None:
        expected = written[name][written[name]["trial_id"].isin(list(ids))]
        pd.testing.assert_frame_equal(analysis.load(harmed).table(name, columns).reset_index(drop=True),
                                      expected[columns or expected.columns].reset_index(drop=True), check_exact=True)

    def queried() -> None:
        assert analysis.query(harmed, SQL).to_numpy().tolist() == asked

    def listed() -> None:
        assert committed(Folder.open(harmed)) == statuses

    def repaired() -> None:
        store = Store.open(Folder.open(harmed), schemas)
        warnings.extend(store.warnings)
        assert store.statuses.items() <= statuses.items()
        for name in TABLES if store.statuses else ():
            same(name, ids=store.statuses)

    ways = {**{name: lambda name=name: same(name) for name in TABLES}, "query": queried, "committed": listed,  # type: ignore[misc]
            "columns": lambda: same("layers", ["trial_id", "stable_rank"])}
    for _ in sys.stdin:
        warnings: list[str] = []
        answer = {"refused": [name for name, look in ways.items() if refused(look)], "unrepaired": refused(repaired),
                  "warnings": warnings}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
