# A fresh machine needs `make demo` and `make test`, nothing else. Every other target is for people who change Minga.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/base.txt requirements/contracts.txt requirements/dev.txt requirements/ai.txt
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
PYTEST := $(BIN)/python -m pytest
CODE := src tests benches contracts examples setup .ci

.PHONY: help peers system setup jobs-env data test check lint types layers shape artifacts demo demo-undisturbed
.PHONY: campaign campaign-sample simulate simulate-sample bench bench-smoke docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

system: ## what Debian's packages give: python3-venv, bubblewrap, npm
	@setup/system.sh

setup: system $(INSTALLED) ## everything that is installed, by version and hash

$(BIN)/python:
	@"$$(setup/python.sh)" -m venv --clear $(VENV)

$(INSTALLED): $(LOCKS) pyproject.toml | $(BIN)/python
	@echo "installing the locked packages into $(VENV)"
	@$(PIP) install "$$($(BIN)/python setup/torch.py)"
	@$(PIP) install --require-hashes --no-deps $(addprefix -r ,$(LOCKS))
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# The environment that jobs run in; built once, then this is instant.
jobs-env: setup
	@$(BIN)/python -m minga.runtimes.environments

data: setup
	@$(BIN)/python examples/pretrain/fetch.py

test: setup jobs-env ## all tests
	@$(PYTEST) -n 2

check: lint types layers shape artifacts ## style, types, layers, shape, documents, compiled contracts

lint: setup
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

types: setup
	@$(BIN)/mypy

layers: setup
	@$(BIN)/lint-imports

shape: setup
	@$(PYTEST) tests/test_tidy.py tests/test_setup.py $(wildcard tests/test_docs.py)

artifacts: setup
	@$(BIN)/python contracts/build.py --check

demo: jobs-env data ## a local network trains a language model for pay; its first provider is killed on the way
	@$(BIN)/minga demo --report demo-report.json

demo-undisturbed: jobs-env data ## the same, and nobody is killed
	@$(BIN)/minga demo --no-kill --report demo-undisturbed.json

campaign: setup ## a million random calls against the contracts
	@$(BIN)/python tests/contracts/campaign.py --calls 1000000 --jobs 2

campaign-sample: setup
	@$(BIN)/python tests/contracts/campaign.py --calls 50000 --jobs 2 --out "$$(mktemp -d)/campaign.json"

simulate: setup ## a hundred thousand simulated worlds; goes on where it was stopped
	@$(BIN)/python -m minga.sim.campaign --seeds 100000 --jobs 2

simulate-sample: setup
	@$(BIN)/python -m minga.sim.campaign --seeds 2000 --first 1000000 --jobs 2 --out "$$(mktemp -d)/simulate.json"

# Ray and OR-tools, to compare with, in an environment of their own.
peers: setup
	@test -e .venv-peers/.installed || { "$$(setup/python.sh)" -m venv --clear .venv-peers; \
	  .venv-peers/bin/python -m pip --quiet install --require-hashes --no-deps -r requirements/peers.txt; \
	  touch .venv-peers/.installed; }

bench: setup jobs-env peers ## every benchmark; results go to benches/results
	@for bench in benches/bench_*.py; do echo "== $$bench"; $(BIN)/python "$$bench"; done

bench-smoke: setup
	@for bench in voucher sandbox; do $(BIN)/python "benches/bench_$$bench.py"; done

docs: setup ## write into the documents what the program knows about itself
	@$(BIN)/python setup/reference.py

lock: $(INSTALLED) ## resolve every dependency anew and write the lock files
	@$(BIN)/python setup/lock.py

clean: ## remove what the set-up and the checks made in this folder
	@rm -rf $(VENV) .venv-peers build dist src/*.egg-info demo-report.json demo-undisturbed.json
	@rm -rf .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
