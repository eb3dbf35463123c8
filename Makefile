# Two commands do all: `make demo` sets up and runs the default experiment, `make test` sets up and runs the tests.
# PYTHON=/path/to/python chooses the interpreter; the first one that is new enough is taken otherwise.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
ENVIRONMENT = .venv
BIN = $(ENVIRONMENT)/bin
WORKERS ?= 4

.PHONY: help demo test setup setup-dev integration slow lint format docs lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

demo: setup ## set up and run the default experiment
	@$(BIN)/assay run config/config.yaml

test: setup-dev ## set up and run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

setup: ## the environment to run experiments
	@$(or $(PYTHON),python3) tools/setup.py

setup-dev: ## the environment to work on Assay
	@$(or $(PYTHON),python3) tools/setup.py --dev

integration: setup-dev ## the tests that need real programs; says which it skipped for want of which
	@$(BIN)/python -m pytest tests/integration -rs

slow: setup-dev ## the tests that take long
	@$(BIN)/python -m pytest tests/unit -m slow -n $(WORKERS)

lint: setup-dev ## format, lint and types, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/mypy
	$(BIN)/python -m assay.config.document --check

format: setup-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile workflow/rules

docs: setup-dev ## write what is generated
	$(BIN)/python -m assay.config.document

lock: ## resolve requirements anew
	$(BIN)/python tools/lock.py

clean: ## remove the environment
	rm -rf $(ENVIRONMENT)
