"""20,000 trivial trials in one run: the driver's memory, the rate, and the number of files, from first to last."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.trials_per_second import STUDY

TRIALS, LINES = 20_000, 10


def main() -> None:
    """Run and print a line for every tenth of the trials."""
    with tempfile.TemporaryDirectory() as folder:
        study, results = Path(folder) / "trivial.yaml", Path(folder) / "results"
        study.write_text(STUDY)
        command = [sys.executable, "-m", "orchestrator.cli", "run", str(study), f"results={results}",
                   f"space.seed.replicates={TRIALS}"]
        began = time.monotonic()
        print(f"{'trials':>8}{'s':>8}{'trials/s':>10}{'driver, MB':>12}{'files':>8}")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            before, then, line = 0, began, 1
            while process.poll() is None:
                committed, now = _committed(results), time.monotonic()
                if committed >= line * TRIALS // LINES:
                    rate = (committed - before) / (now - then)
                    files = sum(1 for path in results.rglob("*") if path.is_file())
                    memory = _memory(process.pid)
                    print(f"{committed:>8}{now - began:>8.1f}{rate:>10.0f}{memory:>12.0f}{files:>8}", flush=True)
                    before, then, line = committed, now, committed * LINES // TRIALS + 1
                time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"the run ended with status {process.returncode}")


def _committed(results: Path) -> int:
    rows = 0
    for path in (results / "trials").glob("*.parquet"):
        try:
            rows += pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowInvalid):  # replaced by a larger one just now
            continue
    return rows


def _memory(pid: int) -> float:
    """Resident megabytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    main()
