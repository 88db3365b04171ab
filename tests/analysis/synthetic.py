"""Synthetic studies: rows with planted numbers, built by ``trials.records`` and written as Parquet parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trials import records
from trials.columns import number

METRICS = ("lambda_max", "lambda_plus", "sigma_mp", "n_spikes", "mp_softrank", "stable_rank", "alpha")
CONFIG = {"model": pa.string(), "lr": pa.float64(), "batch_size": pa.int64(), "seed": pa.int64()}


def study_schema(axes: Sequence[str] = ("batch_size", "seed"),
                 config: Mapping[str, pa.DataType] = CONFIG) -> dict[str, pa.Schema]:
    """The schemas of a study, the spectral metrics used here among the columns of ``layers``."""
    schema = records.schemas(config, axes)
    layers = schema["layers"]
    for name in METRICS:
        if name not in layers.names:
            layers = layers.append(number(name, "spectral metric").field)
    return {**schema, "layers": layers}


@dataclass
class Study:
    """A results folder that trials are added to, a part of each table a commit."""

    root: Path
    schema: dict[str, pa.Schema] = field(default_factory=study_schema)
    parts: int = 0

    def rows(self, trial_id: str, config: Mapping[str, Any] | None = None, *, status: str = "completed",
             final: Mapping[str, float] | None = None, layers: Mapping[str, Mapping[str, Any]] | None = None,
             steps: Sequence[int] = (0, 100), spectra: Mapping[str, Sequence[float]] | None = None) -> records.Rows:
        """One trial; ``layers`` gives the metrics of the last step, those of the steps before are -1."""
        last = max(steps)
        spectral = [{"layer": name, "step": step, "kind": "linear", **metrics,
                     **({} if step == last else {key: -1.0 for key in METRICS if key in metrics})}
                    for step in steps for name, metrics in (layers or {"fc1": {"rows": 64, "cols": 32}}).items()]
        every = {"trial_id": trial_id, "model": "mlp", "lr": 0.1, "batch_size": 8, "seed": 0, **(config or {})}
        return records.Rows.build(self.schema, {
            "trials": [{**every, "status": status, "steps": last, **(final or {})}],
            "steps": [{**every, "step": step} for step in steps],
            "layers": [{**every, **row} for row in spectral],
            "spectra": [{**every, "step": last, "layer": name, "eigenvalues": list(values)}
                        for name, values in (spectra or {}).items()],
        })

    def write(self, rows: records.Rows, tables: Sequence[str] = ("spectra", "layers", "steps", "trials")) -> int:
        """Commit ``rows``; fewer ``tables`` is a commit torn half way. Returns the number of the part."""
        self.parts += 1
        for name in tables:
            if rows.tables[name].num_rows:
                self.part(name, self.parts).parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(rows.tables[name], self.part(name, self.parts))
        return self.parts

    def measure(self, rows: records.Rows, tables: Sequence[str]) -> None:
        """Commit measurements of trials that another part has."""
        number = self.write(rows, tables)
        self.part("trials", number).parent.mkdir(exist_ok=True)
        pq.write_table(self.schema["trials"].empty_table(), self.part("trials", number))

    def add(self, trial_id: str, config: Mapping[str, Any] | None = None, **more: Any) -> int:
        """Commit one trial."""
        return self.write(self.rows(trial_id, config, **more))

    def part(self, table: str, number: int) -> Path:
        return self.root / table / f"part-{number:05d}.parquet"
