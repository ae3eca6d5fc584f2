# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint deploy/constraints.txt

.PHONY: demo test check chaos bench schemas readme clean

demo: $(VENV)/.demo
	@$(BIN)/sitrep demo $(ARGS)

# two at a time, then one by one those that need the machine to themselves; with ARGS, what these say
test: check
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not alone"
	$(BIN)/pytest -m alone
endif

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m stream.schemas --check
	$(BIN)/python -m deploy.readme --check

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos $(ARGS)

# ours, its limits and its peers; ARGS="--kafka-home DIR --data DIR" for Apache Kafka and real posts, --short for a look
bench: $(VENV)/.bench
	$(BIN)/python -m tests.bench $(ARGS)
	$(BIN)/python -m deploy.readme

schemas: $(VENV)/.dev
	$(BIN)/python -m stream.schemas

readme: $(VENV)/.dev
	$(BIN)/python -m deploy.readme

clean:
	rm -rf $(VENV) sitrep-demo .sitrep build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sitrep needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml deploy/constraints.txt
	@echo "Installing Sitrep into $(VENV) (once, a few minutes)..."
	@$(PIP) --editable '.[embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing what the tests need..."
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "Installing whom Sitrep is measured against..."
	@$(PIP) --editable '.[bench]'
	@touch $@
