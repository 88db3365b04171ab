"""The four tables a study emits: their columns, types, units and schema version; and the rows of finished trials.

``trials`` has a row a trial (every config value flat), ``steps`` a row a trial and measured step, ``layers`` a row a
trial, step and layer, ``spectra`` the eigenvalues of each of those layers, and of the Hessian. The swept axes are
columns of all four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from trials import measurements
from trials.columns import Column, number, text, whole
from trials.evaluate import LOSSES
from trials.spectra import METRICS
from trials.weights import OF

SCHEMA_VERSION = 1
VERSION_KEY = b"phasesweep.schema_version"
TABLES = ("trials", "steps", "layers", "spectra")
FINISHED = ("completed", "stopped")
FINAL = (*FINISHED, "diverged")  # statuses that are results; "failed" is tried again by the next run

_ID = text("trial_id", "hash of the trial's canonical configuration, seed included")
_STEP = whole("step", "optimizer steps taken when this was measured; 0 is before training", "step")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "trials": (
        _ID,
        text("status", "completed, stopped (reached stop_train_loss), diverged, or failed"),
        text("reason", "why it diverged or failed; null otherwise"),
        whole("diverged_step", "the step whose loss was not finite or had exploded; null otherwise", "step"),
        whole("steps", "optimizer steps taken", "step"),
        number("epochs", "passes over the training set taken", "epoch"),
        *LOSSES,
        number("chance_loss", "train_loss of the best constant output: the entropy of the shares of the classes, or "
               "half the variance of the targets", "nat or squared unit"),
        whole("parameters", "trainable parameters of the model"),
        number("wall_time", "time spent on this trial, measurements included; its share of a pack's", "s"),
        whole("lanes", "trials trained side by side in its pack, this one included; 1 is alone"),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "", "when the trial ended"),
        whole("attempts", "how many times it was tried"),
        text("device", "device it ran on"),
        text("host", "host it ran on"),
        text("torch_version", "PyTorch version"),
        text("version", "phasesweep version"),
        text("code", "hash of the user's own model or task file and what it imports beside it; null for built-in ones"),
        text("data", "fingerprint of the data of the user's own task; null for built-in ones"),
        text("measure", "the study's measure block, as JSON"),
        text("config", "the canonical configuration, as JSON"),
    ),
    "steps": (
        _ID, _STEP,
        number("epoch", "passes over the training set", "epoch"),
        *LOSSES,
        number("batch_loss", "loss of the batch of this step with all knobs in force; null at step 0",
               "nat or squared unit"),
        number("gradient_norm", "norm of the gradient of that step as the optimizer got it; null at step 0"),
        number("weight_norm", "norm of all parameters"),
        number("weight_distance", "norm of the parameters minus the initial ones"),
        number("elapsed", "time since the trial began", "s"),
        *measurements.columns("steps"),
    ),
    "layers": (
        _ID, _STEP,
        text("layer", "name of the layer in the model"),
        text("kind", "linear, conv2d (flattened kernel), conv2d_operator, attention, recurrent, embedding, parameter; "
                     "activation: no matrix"),
        OF,
        whole("rows", "N, the larger side of the matrix; null for activations"),
        whole("cols", "M, the smaller side; null for activations"),
        *METRICS,
        *measurements.columns("layers"),
        text("reason", "why some numbers are null; null when none is"),
    ),
    "spectra": (
        _ID, _STEP,
        text("layer", "name of the layer in the model"),
        Column("eigenvalues", pa.list_(pa.float64()), "1",
               "eigenvalues of W^T W / N, descending; in layer hessian the nodes of its density"),
        *measurements.columns("spectra"),
    ),
}

# Column -> what in the study's ``measure:`` block switches it on, of those that are not always there.
MEASURED_BY = {**{column.name: "weights" for column in METRICS}, "rows": "weights", "cols": "weights",
               **{column.name: each.group for each in measurements.MEASUREMENTS if each.table in ("steps", "layers")
                  for column in each.columns}}


def schemas(config: Mapping[str, pa.DataType], axes: Sequence[str]) -> dict[str, pa.Schema]:
    """The schema of each table of a study.

    ``config`` maps every flat config column to its type (all go to ``trials``); ``axes`` names those that all four
    tables carry.
    """
    def config_field(name: str) -> pa.Field:
        role = "axis" if name in axes else "config"
        return pa.field(name, config[name], metadata={"unit": "", "description": f"{role} of the study"})

    result = {}
    for table in TABLES:
        names = list(config) if table == "trials" else list(axes)
        fields = [column.field for column in COLUMNS[table]]
        fields[1:1] = [config_field(name) for name in names]
        result[table] = pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})
    return result


@dataclass(frozen=True)
class Rows:
    """The rows of some trials, a table each; what travels from a worker to the one writer."""

    tables: Mapping[str, pa.Table]

    @classmethod
    def build(cls, schema: Mapping[str, pa.Schema], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Rows:
        """Tables from rows as mappings; a column that a row lacks is null there, a key that is no column is dropped."""
        def table(name: str, table_schema: pa.Schema) -> pa.Table:
            listed = rows.get(name, ())
            arrays = [pa.array([row.get(field.name) for row in listed], field.type) for field in table_schema]
            return pa.table(arrays, schema=table_schema)
        return cls({name: table(name, table_schema) for name, table_schema in schema.items()})

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """All rows of ``parts`` (at least one), in order."""
        return cls({name: pa.concat_tables([part.tables[name] for part in parts]) for name in parts[0].tables})

    @property
    def ids(self) -> list[str]:
        """Trial ids, in order."""
        ids: list[str] = self.tables["trials"].column("trial_id").to_pylist()
        return ids

    def to_bytes(self) -> dict[str, bytes]:
        """Each table as an Arrow IPC stream."""
        result = {}
        for name, table in self.tables.items():
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            result[name] = sink.getvalue().to_pybytes()
        return result

    @classmethod
    def from_bytes(cls, data: Mapping[str, bytes]) -> Rows:
        """The inverse of ``to_bytes``."""
        return cls({name: pa.ipc.open_stream(stream).read_all() for name, stream in data.items()})
