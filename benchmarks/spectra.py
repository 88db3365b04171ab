"""Weight spectra against the eigensolves they need, and against weightwatcher 0.7.7 if a python that has it is given.

``python -m benchmarks.spectra [PYTHON]``. An eigensolve is what ``eigenvalues`` needs at least, done plainly: the Gram
matrix in float64 and its eigenvalues, for the whole stack. The full set solves twice (the second time shuffled).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from trials import spectra

PEER = """
import contextlib, io, json, logging, sys, time, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
import torch
torch.set_num_threads(int(sys.argv[1]))
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    import weightwatcher
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 128, bias=False) for _ in range(int(sys.argv[2]))))
    watcher = weightwatcher.WeightWatcher(model=model, log_level=logging.CRITICAL)
    took = {}
    for name, options in (("default", {}), ("full", {"mp_fit": True, "randomize": True})):
        start = time.perf_counter()
        watcher.analyze(plot=False, **options)
        took[name] = time.perf_counter() - start
print(json.dumps(took))
"""
TAIL = ("alpha", "powerlaw")


def best(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least wall time of each, in seconds; they take turns, so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken[1:]) for name, taken in times.items()}  # the first round does not count


def ours(stack: Tensor, rounds: int, limit: float) -> dict[str, float]:
    """Print a line; return the seconds of the full set and of the power-law subset."""
    gram = stack.double().mT @ stack.double()
    took = best({
        "eigvalsh": lambda: torch.linalg.eigvalsh(gram),
        "solve": lambda: torch.linalg.eigvalsh(stack.double().mT @ stack.double()),
        "full": lambda: spectra.rows(stack),
        "power law": lambda: spectra.rows(stack, TAIL),
    }, rounds)
    shape = " x ".join(map(str, stack.shape))
    full = took["full"]
    print(f"{torch.get_num_threads():>8}{shape:>18}{full * 1e3:>10.0f}{full / took['solve'] / 2:>15.2f}{limit:>7}"
          f"{full / took['eigvalsh'] / 2:>17.2f}{took['power law'] * 1e3:>16.0f}", flush=True)
    return took


def main(peer: str | None = None) -> None:
    """Print the times in ms, their ratios to two eigensolves, and, with a peer, how many times faster than it."""
    before = torch.get_num_threads()
    small = torch.randn(200, 128, 64, generator=torch.Generator().manual_seed(0))
    large = torch.randn(2, 2048, 1024, generator=torch.Generator().manual_seed(0))
    print(f"{'threads':>8}{'stack':>18}{'full ms':>10}{'/ two solves':>15}{'asked':>7}{'/ eigvalsh only':>17}"
          f"{'power law ms':>16}")
    mine = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        mine[threads] = ours(small, 20, 4.0)
        ours(large, 5, 1.3)
    torch.set_num_threads(before)
    if peer is None:
        print("weightwatcher: not measured (python -m benchmarks.spectra PYTHON, a python with weightwatcher 0.7.7)")
        return
    for threads, took in mine.items():
        count = 20  # of the 200 matrices: the peer takes them one by one
        done = subprocess.run([peer, "-c", PEER, str(threads), str(count)], capture_output=True, text=True, check=True)
        theirs = {name: seconds * len(small) / count for name, seconds in json.loads(done.stdout).items()}
        print(f"weightwatcher, {threads} threads, 200 of 128 x 64: mp_fit and randomize {theirs['full']:.1f} s, "
              f"{theirs['full'] / took['full']:.0f} times ours (asked 100); default {theirs['default']:.1f} s, "
              f"{theirs['default'] / took['power law']:.0f} times our power law (asked 5)", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2])
