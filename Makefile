# make run: set up, then the main study on real data. make test: set up, then all tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: run test chaos slurm check bench calibrate venv clean

run: $(READY)
	$(BIN)/phasesweep run batch_size_phases
	$(BIN)/phasesweep report batch_size_phases

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

chaos: $(READY)
	$(BIN)/python -m pytest -m chaos --timeout=1200 tests/chaos

# On a Slurm that the tests start on this machine and stop again: Debian's packages, as root.
slurm: $(READY)
	command -v slurmd munged >/dev/null || { apt-get update --quiet && apt-get install --yes --quiet slurm-wlm munge; }
	$(BIN)/python -m pytest -m slurm --timeout=600 tests/cluster/test_real_slurm.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

calibrate: $(READY)
	$(BIN)/python -m benchmarks calibrate

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
