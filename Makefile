# Everything a newcomer needs is a target here; `make help` lists them. GNU make and Python 3.11 to 3.13 are all it asks for.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PYTHON ?=
SABOTAGE ?= errors
WORKSPACE ?=
PORT ?=
PYTEST_ARGS ?=
CONTAINER ?= docker
IMAGE_TAG ?= 0.1.0

DEMO_OPTIONS = $(if $(WORKSPACE),--workspace '$(WORKSPACE)') $(if $(PORT),--port '$(PORT)')

##@ Use it
.PHONY: run
run: $(STAMPS)/run ## The whole mission on this machine: data to live traffic, canary promoted (WORKSPACE=, PORT=)
	@exec $(BIN)/canaryflow demo $(DEMO_OPTIONS)

.PHONY: run-rollback
run-rollback: $(STAMPS)/run ## The same with a sabotaged challenger, rolled back (SABOTAGE=errors|slow, WORKSPACE=, PORT=)
	@exec $(BIN)/canaryflow demo --sabotage '$(SABOTAGE)' $(DEMO_OPTIONS)

.PHONY: env
env: $(STAMPS)/run ## Make the environment in .venv and nothing else (PYTHON=python3.12 chooses the interpreter)

##@ Work on it
.PHONY: test
test: system lint ## Everything: set-up, lint, types, import contracts, tests (PYTEST_ARGS=; CI=true: a test left out fails)
	$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMPS)/dev ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(STAMPS)/dev ## Put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: compile
compile: $(STAMPS)/run ## Compile components and pipelines into the YAML that is committed
	$(BIN)/canaryflow compile --checkout .

.PHONY: bench
bench: $(STAMPS)/dev ## Run the benchmarks, each prints a table
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

.PHONY: images
images: $(STAMPS)/dev ## Build the container images (CONTAINER=docker|podman, IMAGE_TAG=)
	@command -v '$(CONTAINER)' >/dev/null || { echo "make images: no '$(CONTAINER)' on PATH: install it or set CONTAINER=podman" >&2; exit 2; }
	@for file in images/*/Dockerfile; do \
	  name=$$(basename "$$(dirname "$$file")"); \
	  '$(CONTAINER)' build -t "canaryflow-$$name:$(IMAGE_TAG)" -f "$$file" .; \
	done

.PHONY: requirements
requirements: $(STAMPS)/bootstrap ## Renew the lock files in requirements/ (versions with hashes, no addresses)
	@requirements/lock '$(VENV)'

.PHONY: clean
clean: ## Remove the environment, caches and builds (workspaces stay)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The environment. A stamp says what was installed, so a second `make` does nothing. uv resolves nothing here: it installs
# what the locks name and takes out what they do not. Source distributions are built with the tools the locks pin.
$(STAMPS)/venv:
	@requirements/venv '$(VENV)' '$(PYTHON)'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bootstrap: requirements/bootstrap.txt $(STAMPS)/venv
	@echo "installing the installer"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	@touch $@

$(STAMPS)/run: requirements/run.txt pyproject.toml $(STAMPS)/bootstrap
	@if ! $(MAKE) --question --no-print-directory $(STAMPS)/dev 2>/dev/null; then \
	  rm -f $(STAMPS)/dev; requirements/sync '$(VENV)' requirements/run.txt; fi
	@touch $@

$(STAMPS)/dev: requirements/dev.txt pyproject.toml $(STAMPS)/bootstrap
	@requirements/sync '$(VENV)' requirements/dev.txt
	@touch $@ $(STAMPS)/run

.PHONY: system
system: $(STAMPS)/dev
	@requirements/system
