# Every target makes what it needs first: one command is enough on a fresh machine.
PYTHON ?= python3
VENV := .venv
# With an NVIDIA GPU: make setup REQUIREMENTS=requirements-gpu.txt
REQUIREMENTS ?= requirements.txt
PY := $(VENV)/bin/python
# PyTorch, for `make bench` to measure against: an environment of its own, for the two do not agree on their dependencies.
TORCH_VENV := .venv-torch
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: setup dev quickstart test test-all soak fuzz lint bench bench-torch evidence clean

setup: $(VENV)/.installed
dev: $(VENV)/.installed-dev

$(VENV)/.installed: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: $(PYTHON) is Python " + sys.version.split()[0] + "; la_tf needs 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

quickstart: setup  ## the digits, from nothing to an export, in two minutes
	$(PY) -m la_tf.train --flagfile=quickstart.flags

# Two tests at a time, one thread each: more threads than cores cost an eighth of the time.
test test-all: export TF_NUM_INTRAOP_THREADS = 1
test test-all: export OMP_NUM_THREADS = 1

test: dev  ## under 10 minutes on two cores
	$(PY) -m pytest -n 2 --dist worksteal -m "not slow"

test-all: dev  ## with kills, resumes, notebook and presets: under 40 minutes
	$(PY) -m pytest -n 2 --dist worksteal

SOAK_SECONDS ?= 1800
soak: dev  ## runs that everything happens to, for half an hour; a small disk that becomes full needs root
	$(PY) -m tests.soak --seconds=$(SOAK_SECONDS)

lint: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Inputs that failed are kept in build/fuzz/failures; what is printed says how to have one again.
fuzz: FUZZ_SECONDS ?= 600
fuzz: dev  ## every reader of files and flags, on inputs that are nearly right, for ten minutes
	$(PY) -m tests.fuzz --seconds=$(FUZZ_SECONDS)

bench: setup
	$(PY) -m benchmarks

bench-torch: $(TORCH_VENV)/.installed  ## once: what `make bench` compares with

evidence: setup  ## the studies of evidence/, hours; LA_TF_DATA is the folder of the picture sets; QUICK=1: LA and IR on the digits
	$(PY) -m evidence $(if $(QUICK),--quick)

$(TORCH_VENV)/.installed:
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --extra-index-url $(TORCH_INDEX) torch==2.13.0 numpy
	@touch $@

clean:
	rm -rf $(VENV) $(TORCH_VENV) build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
