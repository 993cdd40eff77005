# make smoke: install, then train a small language model here.    make test: install, then run the tests.
# Both make .venv with Python 3.11 the first time and start at once after that.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: smoke test slow check bench setup clean

smoke: .venv/train.stamp
	$(BIN)/python -m aiftrain recipe=smoke

# Workers share the cores: a thread that spins while it waits for another keeps that one from running. Twenty-five steps
# of the smoke recipe on two busy cores take 15 s of them instead of 72.
test slow: export OMP_WAIT_POLICY = PASSIVE
unexport PYTHONDONTWRITEBYTECODE  # containers set it: each of a thousand programs would compile aiftrain again

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

slow: .venv/dev.stamp .venv/intel-mpi.stamp
	$(BIN)/python -m pytest -m slow tests/test_main_job.py  # alone: it holds the smoke recipe to three minutes
	$(BIN)/python -m pytest -m slow -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/test_main_job.py

check: .venv/dev.stamp
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	shellcheck --shell=bash launchers/*.sh tests/rigs/*.sh .ci/run

bench: .venv/dev.stamp
	for program in startup loader tokenization planner_memory planner step scaling opens checkpoints; do $(BIN)/python -m benchmarks.$$program || exit; done

setup: .venv/dev.stamp

.venv/train.stamp: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "aiftrain needs Python 3.11: no $(PYTHON) here; make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[train]'
	touch $@

.venv/dev.stamp: .venv/train.stamp
	$(INSTALL) -e '.[train,fp8,parquet,sentencepiece,s3,seal,sign,dev]'
	touch $@

# In a folder of its own: here its mpiexec would take the place of Open MPI's. 129 MB to download, 296 MB on the disk.
.venv/intel-mpi.stamp: Makefile .venv/train.stamp
	$(PYTHON) -m venv --without-pip .venv/intel-mpi
	$(BIN)/python -m pip --python .venv/intel-mpi/bin/python install --quiet --disable-pip-version-check impi-rt==2021.18.1
	touch $@

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
