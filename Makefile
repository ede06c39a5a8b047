# What people do with the project, one target each. Everything runs in .venv, which is made on first use and remade when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

# Test images, and trained weights of a community network. Tests that need them are skipped where the variables are not set.
ifneq ($(wildcard ../shared/data),)
export IRFORMER_DATA ?= $(abspath ../shared/data)
endif
ifneq ($(wildcard ../shared/weights),)
export IRFORMER_WEIGHTS ?= $(abspath ../shared/weights)
endif

.PHONY: help install demo protocols configuration tables docs reliability test test-slow check clean

help:
	@echo "make demo       LayerNorm against i-LN on real photos, in minutes: runs/demo/figure1.png and report.html"
	@echo "make protocols  every task without a network on all test sets at hand: the table of docs/protocols.md"
	@echo "make configuration  all configuration keys: docs/configuration.md"
	@echo "make tables     all models, norms and tasks: docs/models.md, docs/norms.md, docs/tasks.md"
	@echo "make docs       the documentation site: site/index.html"
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
	@$(BIN)/python scripts/reproduce.py figure1 budget=demo out=runs/demo

protocols: install
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/protocols.py

configuration: install
	@$(BIN)/python scripts/configuration.py

tables: install
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/tables.py

# Strict: a broken link fails. The built pages load nothing from elsewhere, and building them needs no network.
docs: .venv/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "wrote site/index.html"

.venv/docs: .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

reliability: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --reliability docs/reliability.md --numprocesses auto

# One test process for each core, and one thread for each process: more would only wait for each other.
test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -rs --numprocesses auto --dist worksteal

test-slow: install
	@$(BIN)/python -m pytest -m slow -rs

check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf .venv site .pytest_cache .ruff_cache .mypy_cache
