"""``python -m benchmarks [NAME ...]``: run the benchmarks named, or all of them, and print their tables.

``python -m benchmarks calibrate`` runs the simulations of how often intervals cover and tests err.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Run each module's ``main``."""
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")]
    calibrate = sys.argv[1:] == ["calibrate"]
    every = [name for name in modules if name.startswith("calibration_") == calibrate]
    for name in every if calibrate else sys.argv[1:] or every:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
