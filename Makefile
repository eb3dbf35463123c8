# Two commands do all: `make demo` sets up and runs the default experiment, `make test` sets up and runs the tests.
# PYTHON=/path/to/python chooses the interpreter; otherwise the first is taken for which all locked packages are
# ready-made, then 3.14, where one is built from source. SETUP="…" hands arguments to tools/setup.py.

PYTHON := $(or $(PYTHON),$(shell for newest in 13 14; do \
	for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	if $$name -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $$newest))" 2>/dev/null; \
	then echo $$name; exit; fi; done; done; command -v python3 || command -v python))
ENVIRONMENT = .venv
BIN = $(ENVIRONMENT)/bin
WORKERS ?= 4

# What a recipe starts Python by.
python = @$(if $(PYTHON),$(PYTHON),echo "set-up: there is no Python; install 3.11 or newer" >&2; false)

.PHONY: help demo release-demo test setup setup-dev programs integration slow lint format docs lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

demo: setup ## set up and run the default experiment
	@$(BIN)/assay run config/config.yaml

release-demo: setup ## two models behind a front, simulated users, a ramp; BAD=slow|errors|nan|drift is rolled back
	@$(BIN)/python -P -m assay.release.demo --bad "$(BAD)"

test: setup-dev ## set up and run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

setup: ## the environment to run experiments
	$(python) tools/setup.py $(SETUP)

setup-dev: ## the environment to work on Assay
	$(python) tools/setup.py --dev $(SETUP)

programs: ## what integration tests start and PyPI has, in an environment of its own
	$(python) tools/setup.py --environment .programs --requirements requirements/programs.txt --needs 2000000000

integration: setup-dev ## the tests that need real programs; says which it skipped for want of which
	@PATH="$$PATH:$(CURDIR)/.programs/bin" $(BIN)/python -m pytest tests/integration -rs -n 2 --dist loadgroup --no-loadscope-reorder

slow: setup-dev ## the tests that take long
	@$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadgroup

lint: setup-dev ## format, lint and types, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/mypy
	$(BIN)/python -m assay.config.document --check
	$(BIN)/python -m assay.release.document --check

format: setup-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile workflow/rules

docs: setup-dev ## write what is generated
	$(BIN)/python -m assay.config.document
	$(BIN)/python -m assay.release.document

lock: ## resolve requirements anew; UPGRADE=--upgrade takes the newest of each
	$(BIN)/python tools/lock.py $(UPGRADE)

clean: ## remove the environment
	rm -rf $(ENVIRONMENT) .programs
