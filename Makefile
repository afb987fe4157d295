# Every target makes what it needs first: one command is enough on a fresh machine.
PYTHON ?= python3
VENV := .venv
# With an NVIDIA GPU: make setup REQUIREMENTS=requirements-gpu.txt
REQUIREMENTS ?= requirements.txt
PY := $(VENV)/bin/python

.PHONY: setup dev quickstart test test-all lint bench clean

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

test: dev  ## under 10 minutes on two cores
	$(PY) -m pytest -m "not slow"

test-all: dev  ## with kills, resumes, notebook and presets: under 40 minutes
	$(PY) -m pytest

lint: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: setup
	$(PY) -m benchmarks

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
