# Everything runs in a virtual environment that the first target creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test-fast test test-all test-cpus check-fresh lint format packages swift-models swift-test clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# The whole way once, with the bundled checkpoints: packages and reports in mvit-demo/.
demo: $(READY)
	$(BIN)/mvit-coreml demo --force

# Files of tests share the cores, one thread each, the longest first.
THREADS := 1
PYTEST = OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder

# Some tests of every folder, those marked so, in a minute.
test-fast: $(READY)
	$(PYTEST) -m "fast and not slow"

# What every change must pass; takes minutes.
test: $(READY)
	$(PYTEST) -m "not slow" --durations 25 --durations-min 1

# Everything, including every published architecture and all photos.
test-all: $(READY)
	$(PYTEST)

# `make test` with the kernels that torch has for older CPUs, and with two threads a worker.
test-cpus: $(READY)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(MAKE) test
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(MAKE) test THREADS=2

# `make demo` and `make test` in a fresh clone of the last commit with an empty home directory.
check-fresh:
	scripts/check_fresh.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A package of every recipe in convert/ that is not up to date; needs the hub.
packages: $(READY)
	$(BIN)/mvit-coreml build convert -o packages

# The demo packages with their self-tests, where the iOS app bundles them.
swift-models: $(READY)
	$(BIN)/python swift_demo/make_models.py

# Everything of swift_demo/ that can be checked without a Mac; part of `make test` as well.
swift-test: $(READY)
	$(BIN)/python -m pytest tests/swift

clean:
	rm -rf $(VENV) mvit-demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
