# Everything a newcomer or a CI needs; `make help` lists it.
#   PYTHON=python3.12       the interpreter .venv is made with
#   TORCH_INDEX=URL         a further package index for torch, such as PyTorch's own of CPU wheels
#   ARGS="..."              what is passed on to `parteq demo` or to pytest

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
TORCH_INDEX ?=
ARGS ?=
UV ?= uv
LOCK_FLAGS ?= --torch-backend cpu

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install
READY := $(VENV)/ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# Without it, the folder `datasets` here would stand before every other package of that name.
export PYTHONSAFEPATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format types contracts check bench lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## build .venv with the command `parteq` in it

# torch comes first and alone with its dependencies; the rest is pinned and installed without dependencies.
# So nothing can bring another torch, nor py3nj, which escnn names but does not need and which wants a Fortran compiler.
$(READY): pyproject.toml requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo 'parteq needs Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint requirements.lock torch==2.13.0
	$(PIP) --no-deps --requirement requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## train, measure, export and report on data that come along; ends with the path of a report
	$(BIN)/parteq demo $(ARGS)

test: setup  ## tests and doctests, without the slow ones
	$(PYTEST) $(ARGS)

test-slow: setup  ## the slow tests alone
	$(PYTEST) -m slow $(ARGS)

lint: setup  ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## mypy, strict on the core
	$(BIN)/mypy

contracts: setup  ## import-linter: which folder may import which
	$(BIN)/lint-imports

check: lint types contracts test  ## all four

bench: setup  ## speed of the core against plain convolutions and escnn
	$(BIN)/python benchmarks/core_speed.py $(ARGS)

lock: setup  ## write requirements.lock anew (needs uv)
	$(UV) pip compile pyproject.toml --upgrade --extra export --extra topology --extra wsi --extra dev --python-version 3.11 $(LOCK_FLAGS) \
	  --no-emit-package torch --no-annotate --custom-compile-command 'make lock' --output-file requirements.lock

clean:  ## remove .venv and every cache
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
