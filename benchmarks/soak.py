"""20,000 trivial trials in one run: the driver's memory and work, the rate and the number of files, first to last.

A line for each tenth of the trials; then what the driver's memory grows by per trial, from the second tenth (when all
that is loaded once is loaded) to the last, and how the second half's rate compares with the first's, by the clock, and
by the driver's own processor time, which other work on the machine disturbs less. The last tenth is that of packs that
shrink, so that the workers finish together.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.trials_per_second import STUDY

TRIALS, LINES = 20_000, 10
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Point:
    """What was seen at one moment: trials committed, the clock, the driver's processor time and resident bytes."""

    trials: int
    clock: float
    cpu: float
    memory: float

    def rate(self, before: Point) -> float:
        """Trials a second since then."""
        return (self.trials - before.trials) / (self.clock - before.clock)

    def cost(self, before: Point) -> float:
        """Processor seconds of the driver for a thousand trials since then."""
        return 1e3 * (self.cpu - before.cpu) / (self.trials - before.trials)


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as folder:
        study, results = Path(folder) / "trivial.yaml", Path(folder) / "results"
        study.write_text(STUDY)
        command = [sys.executable, "-m", "orchestrator.cli", "run", str(study), f"results={results}",
                   f"space.seed.replicates={TRIALS}"]
        began = time.monotonic()
        print(f"{'trials':>8}{'s':>8}{'trials/s':>10}{'driver, s/1000':>16}{'driver, MB':>12}{'files':>8}")
        points: list[Point] = []
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            first = None  # commit: what starts once is over
            while process.poll() is None:
                committed = _committed(results)
                if committed and first is None:
                    first = _look(process.pid, committed)
                before = points[-1] if points else first
                if before is not None and committed >= max(before.trials + 1, (len(points) + 1) * TRIALS // LINES):
                    now = _look(process.pid, committed)
                    files = sum(1 for path in results.rglob("*") if path.is_file())
                    print(f"{committed:>8}{now.clock - began:>8.1f}{now.rate(before):>10.0f}{now.cost(before):>16.2f}"
                          f"{now.memory / 2**20:>12.0f}{files:>8}", flush=True)
                    points.append(now)
                time.sleep(POLL_SECONDS)
        if process.returncode:
            raise SystemExit(f"the run ended with status {process.returncode}")
    _conclude(first, points)


def _conclude(first: Point | None, points: list[Point]) -> None:
    if first is None or len(points) < 3:
        raise SystemExit("too quick to be seen: take more TRIALS")
    slope = (points[-1].memory - points[1].memory) / (points[-1].trials - points[1].trials)
    middle = min(points, key=lambda point: abs(2 * point.trials - first.trials - points[-1].trials))
    rate = points[-1].rate(middle) / middle.rate(first)
    cost = middle.cost(first) / points[-1].cost(middle)
    last = points[-1].rate(points[-2]) / points[0].rate(first)
    print(f"memory grows by {slope:,.0f} bytes a trial (most: {max(p.memory for p in points) / 2**20:,.0f} MB); "
          f"second half against the first: {rate:.2f} times the rate by the clock, {cost:.2f} by processor time; last "
          f"tenth against the first: {last:.2f} by the clock")


def _committed(results: Path) -> int:
    rows = 0
    for path in (results / "trials").glob("*.parquet"):
        try:
            rows += pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowInvalid):  # replaced by a larger one just now
            continue
    return rows


def _look(pid: int, trials: int) -> Point:
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]  # in Python and in the kernel
    return Point(trials, time.monotonic(), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), resident)


if __name__ == "__main__":
    main()
