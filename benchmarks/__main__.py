"""``python -m benchmarks [NAME ...]``: run the benchmarks named, or all of them, and print their tables."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Run each module's ``main``."""
    names = sys.argv[1:] or [module.name for module in pkgutil.iter_modules(benchmarks.__path__)
                             if not module.name.startswith("_")]
    for name in names:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
