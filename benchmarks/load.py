"""From files to an answer: 10 million layer rows filtered, a power law fitted and drawn, beside one CSV or JSON file a
trial as Ray Tune writes them.

``python -m benchmarks.load [ROWS]``. A trial has 20 measured steps of 5 layers with all weight metrics; what is asked
is the stable rank of one layer at the last step against the batch size. The rows are planted on a power law, and both
ways must find it. Files a trial are read for PEERS trials and their time scaled by the number of trials; opening
100,000 of them for real would only be slower, for they do not fit the cache of the file system.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trials import records
from trials.spectra import METRICS

STEPS, LAYERS = 20, 5
PEERS = 400
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PART = 500  # trials a part
ASK = """
import resource, sys, time
began = time.perf_counter()
import pyarrow.compute as pc
import analysis
tables = analysis.load(sys.argv[1])
rows = tables.table("layers", ["batch_size", "stable_rank"], (pc.field("layer") == "fc2") & (pc.field("step") == 1900))
fit = analysis.fit_law(rows, "power", "batch_size", "stable_rank")
read = time.perf_counter() - began
analysis.law_figure(fit).savefig(sys.argv[1] + "/law.png", dpi=150)
exponent = fit.estimates["exponent"]
assert abs(exponent.value - 0.25) < 0.01, exponent
print(time.perf_counter() - began, read, len(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
THEIRS = """
import json, sys, time
from pathlib import Path
import pandas as pd
began = time.perf_counter()
frames = []
for folder in Path(sys.argv[1]).iterdir():
    config = json.loads((folder / "params.json").read_text())
    if sys.argv[2] == "csv":
        frame = pd.read_csv(folder / "progress.csv", usecols=["step", "fc2/stable_rank"])
    else:
        lines = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        frame = pd.DataFrame({name: [line[name] for line in lines] for name in ("step", "fc2/stable_rank")})
    frames.append(frame[frame["step"] == 1900].assign(**config))
rows = pd.concat(frames)
print(time.perf_counter() - began, len(rows))
"""


def main(rows: int = 10_000_000) -> None:
    """Write, ask and print."""
    trials = max(PART, rows // (STEPS * LAYERS))
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "study"), Path(folder, "tune")
        _write_parquet(ours, trials)
        _write_files(theirs)
        size = sum(path.stat().st_size for path in ours.rglob("*.parquet"))
        total, read, found, memory = map(float, _run(ASK, str(ours)))
        print(f"{trials * STEPS * LAYERS:,} layer rows of {trials:,} trials, {size / 2**30:.1f} GiB of Parquet; "
              f"{found:,.0f} rows pass the filter; peak memory {memory:,.0f} MB")
        print(f"{'':<46}{'s':>9}{'ours is':>10}{'asked':>7}")
        print(f"{'phasesweep: load, filter, fit':<46}{read:>9.1f}")
        print(f"{'phasesweep: and draw':<46}{total:>9.1f}")
        for kind in ("csv", "json"):
            took, count = map(float, _run(THEIRS, str(theirs), kind))
            assert count == PEERS
            scaled = took / PEERS * trials
            name = f"a {kind} file a trial: load and filter, scaled"
            print(f"{name:<46}{scaled:>9.0f}{scaled / total:>9.0f}x{50:>7}")


def _run(code: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()


def _layers(rng: np.random.Generator, batch_size: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers of all metrics for trials of these batch sizes, (trials * STEPS * LAYERS,) each."""
    count = len(batch_size) * STEPS * LAYERS
    numbers = {column.name: rng.lognormal(size=count) for column in METRICS if column.type == pa.float64()}
    noise = np.exp(0.1 * rng.normal(size=count))
    return {**numbers, "stable_rank": 2.0 * np.repeat(batch_size, STEPS * LAYERS) ** 0.25 * noise}


def _write_parquet(root: Path, trials: int) -> None:
    schema = records.schemas({"batch_size": pa.int64(), "seed": pa.int64()}, ("batch_size", "seed"))
    rng = np.random.default_rng(0)
    for name in records.TABLES:
        (root / name).mkdir(parents=True)
    for part in range(trials // PART):
        ids = np.array([f"{part:05d}{place:05d}".ljust(20, "0") for place in range(PART)])
        sizes, seeds = rng.choice(SIZES, PART), np.arange(PART)
        each = STEPS * LAYERS
        layers = {"trial_id": np.repeat(ids, each), "batch_size": np.repeat(sizes, each),
                  "seed": np.repeat(seeds, each),
                  "step": np.tile(np.repeat(np.arange(STEPS) * 100, LAYERS), PART),
                  "layer": np.tile([f"fc{number}" for number in range(1, LAYERS + 1)], PART * STEPS),
                  "kind": np.full(PART * each, "linear"), **_layers(rng, sizes)}
        _part(root / "layers", part, schema["layers"], layers)
        _part(root / "trials", part, schema["trials"],
              {"trial_id": ids, "batch_size": sizes, "seed": seeds, "status": np.full(PART, "completed")})


def _part(folder: Path, number: int, schema: pa.Schema, columns: dict[str, np.ndarray]) -> None:
    length = len(columns["trial_id"])
    arrays = [pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(length, field.type)
              for field in schema]
    pq.write_table(pa.table(arrays, schema=schema), folder / f"part-{number:05d}.parquet", compression="zstd")


def _write_files(root: Path) -> None:
    """What Ray Tune leaves of a trial that reports every layer's metrics at every step."""
    rng = np.random.default_rng(1)
    for trial in range(PEERS):
        folder = root / f"trial_{trial:05d}"
        folder.mkdir(parents=True)
        size = int(rng.choice(SIZES))
        numbers = _layers(rng, np.array([size]))
        lines = [{"step": step * 100, "training_iteration": step + 1, "time_total_s": 1.0,
                  **{f"fc{layer + 1}/{name}": values[step * LAYERS + layer] for layer in range(LAYERS)
                     for name, values in numbers.items()}} for step in range(STEPS)]
        (folder / "params.json").write_text(json.dumps({"batch_size": size, "seed": trial}))
        (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        pd.DataFrame(lines).to_csv(folder / "progress.csv", index=False)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
