"""Results of a study without a run: its trials, one after another in this process. They are what a run is to give."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from orchestrator.folder import Folder
from orchestrator.provenance import write_study
from orchestrator.run import wanted_schemas
from orchestrator.shipping import fingerprint
from orchestrator.store import Store
from orchestrator.worker import Job, trial_rows
from search_spaces import load_study
from trials import usercode
from trials.records import TABLES, Rows
from trials.trainer import train


def trained(path: Path, results: Path) -> Path:
    """Fill the folder ``results`` for the study in the file ``path``, on the CPU. Models that sleep do not."""
    torch.set_num_threads(1)  # as a worker does: with more, the last digits are others
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usercode, "_folders", [])
        patch.setattr(time, "sleep", lambda seconds: None)
        study, folder = load_study(str(path)), Folder.open(results)
        store, where = Store.open(folder, wanted_schemas(study, folder)), str(results)
        job = Job(study.measure, store.schemas, tuple(store.axes), 1.0, 0, 1, 60.0, where, where, os.getcwd(),
                  fingerprint(study), 0.0)
        rows = [trial_rows(spec, train(spec, study.measure), 1, job, "cpu") for spec in study.trials(lambda ids: [])
                if spec is not None]
        store.commit(Rows.build(store.schemas, {name: [row for trial in rows for row in trial[name]]
                                                for name in TABLES}))
        write_study(study, folder, False)
    return results
