# What people do with the project, one target each. Everything runs in .venv, which is made on first use and remade when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

# Images and reference outputs that tests and runs look for; both may be set from outside.
ifneq ($(wildcard ../shared/data),)
export IRFORMER_DATA ?= $(abspath ../shared/data)
endif
ifneq ($(wildcard ../shared/golden),)
export IRFORMER_GOLDEN ?= $(abspath ../shared/golden)
endif
ifneq ($(wildcard ../shared/weights),)
export IRFORMER_WEIGHTS ?= $(abspath ../shared/weights)
endif

.PHONY: help install demo protocols configuration reliability test test-slow check clean

help:
	@echo "make demo       LayerNorm against i-LN on real photos, in minutes: runs/demo/figure1.png and report.html"
	@echo "make protocols  every task without a network on all test sets at hand: the table of docs/protocols.md"
	@echo "make configuration  all configuration keys: docs/configuration.md"
	@echo "make reliability  all attempts to break irformer, the slow ones too: the table of docs/reliability.md"
	@echo "make test       all tests but the slow proofs"
	@echo "make test-slow  the slow proofs"
	@echo "make check      ruff and mypy"
	@echo "make install    only set up .venv"

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "irformer needs Python 3.10 or newer, found %s: make PYTHON=/path/to/python3.10" % sys.version.split()[0])'
	@echo "Setting up .venv (torch is large: some minutes on the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install
	@$(BIN)/python scripts/reproduce.py figure1 budget=cpu out=runs/demo

protocols: install
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/protocols.py

configuration: install
	@$(BIN)/python scripts/configuration.py

reliability: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --reliability docs/reliability.md --numprocesses auto

# One test process for each core, and one thread for each process: more would only wait for each other.
test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto

test-slow: install
	@$(BIN)/python -m pytest -m slow

check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
