"""A user's own task: its data are made as a guest, checked, and the same each time.

A task is called anew in every process that trains, and again where its data have been let go. The first fingerprint of
its data is kept, the driver's go to the workers, and data that differ end the run: trials of one name would be trained
on different data, and nothing in the results would say so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from trials import usercode
from trials.errors import UserError, describe
from trials.guest import guest
from trials.tasks.base import Data
from trials.tasks.check import checked
from trials.tasks.fingerprint import fingerprint, same

PLACE = "trial.task"

_known: dict[str, str] = {}  # fingerprints of data, by task
_sizes: dict[str, int | None] = {}  # of training sets
_age = 0


class Changed(UserError):
    """A task has given other data than before. Ends the run, not the trial alone."""


def load(task: Mapping[str, Any]) -> Data:
    """The data of a user's task, on the CPU: a copy, which is the caller's. Raises UserError, and Changed."""
    params = dict(task)
    name = params.pop("name")
    function = usercode.load(name, f"{PLACE}.name")
    # One seed for all trials: data are the task's, not the trial's.
    with guest(0, "task", whose=f"{PLACE}.name: {name}"):
        try:
            data = function(**params)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            missing = isinstance(error, FileNotFoundError)
            how = f"; looked for in {os.getcwd()}: Path(__file__).parent is the folder of the task" if missing else ""
            raise UserError(f"{PLACE}: {name} failed: {describe(error)}{how}") from error
        data = checked(data, f"{PLACE}.name: {name}")
        found = fingerprint(data)
    _sizes[_key(task)] = None if data.fresh is not None else len(data.x_train)
    _same(task, found)
    return data


def _same(task: Mapping[str, Any], found: str) -> None:
    if same(_known.setdefault(_key(task), found), found):
        return
    params = ", ".join(f"{name} {value}" for name, value in task.items() if name != "name")
    raise Changed(f"{PLACE}: {task['name']}{f' ({params})' if params else ''} gave other data than before; a task must "
                  "give the same data each time and in each process: seed every generator it makes "
                  "(np.random.default_rng(0)), sort what comes from a set or a folder, and leave its files alone while "
                  "a run is on")


def train_size(task: Mapping[str, Any]) -> int | None:
    """Number of training samples; None where every batch is fresh. The task is called the first time."""
    if _key(task) not in _sizes:
        load(task)
    return _sizes[_key(task)]


def known() -> dict[str, str]:
    """Fingerprints of the data of the tasks seen so far, by task."""
    return dict(_known)


def of(task: Mapping[str, Any]) -> str | None:
    """The fingerprint of a task's data, where it is known; None for built-in tasks."""
    return _known.get(_key(task))


def compare(rows: Iterable[Mapping[str, Any]]) -> None:
    """Hold the data that trials were trained on, the columns ``config`` and ``data`` of their rows, against what is
    known. Raises Changed."""
    for row in rows:
        if row["data"] is not None:
            _same(json.loads(row["config"])["task"], row["data"])


def expect(fingerprints: Mapping[str, str]) -> None:
    """From now on these are what is known: those of another process, or none where a run begins."""
    global _age
    _known.clear()
    _sizes.clear()
    _known.update(fingerprints)
    _age += 1


def age() -> int:
    """Grows where data must be made anew, because a run begins."""
    return _age


def _key(task: Mapping[str, Any]) -> str:
    return json.dumps(dict(task), sort_keys=True)
