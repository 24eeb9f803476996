# Every target makes and reuses .venv by itself; nothing but Python 3.11 and make is needed.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
ARGS ?=

.PHONY: demo test nightly check house format bench docs dist clean

demo: $(VENV)/.run
	$(BIN)/mimi-mmr demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 3 --dist worksteal $(ARGS)

nightly: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m nightly $(ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

house: $(VENV)/.check
	$(BIN)/python -m tests.house $(ARGS)

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.treewrap $(ARGS)
	$(BIN)/python -m benchmarks.ohttp $(ARGS)
	$(BIN)/python -m benchmarks.identities $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/python docs/generate.py
	$(BIN)/python -m pdoc -o build/docs treewrap ohttp_relay mimi_mmr

dist: $(VENV)/.test
	$(BIN)/python -m build --no-isolation --outdir dist $(ARGS) .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python found; install Python 3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is too old; Python 3.11 or later is needed (make PYTHON=…)" >&2; exit 1; }
	@echo "installing into $(VENV), once; this takes a minute…"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing . …"
	@$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "installing .[test] …"
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.check: pyproject.toml | $(BIN)/python
	@echo "installing .[test,check] …"
	@$(PIP) -e '.[test,check]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "installing .[bench] …"
	@$(PIP) -e '.[bench]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	@echo "installing .[docs] …"
	@$(PIP) -e '.[docs]'
	@touch $@
