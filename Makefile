# A fresh machine needs `make demo` and `make test`, nothing else. Every other target is for people who change Minga.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/base.txt requirements/contracts.txt requirements/dev.txt requirements/ai.txt requirements/models.txt
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
PYTEST := $(BIN)/python -m pytest
CODE := src tests benches contracts examples setup .ci

.PHONY: help peers system setup jobs-env data test check lint types layers shape artifacts demo demo-undisturbed
.PHONY: demo-dispute campaign-disputes campaign-training campaign-inference campaign-economics verification-sample
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

demo-dispute: jobs-env ## a provider cheats at training, is challenged, loses the game and its stake; the tenant is refunded
	@$(BIN)/minga demo-dispute --report demo-dispute.json

campaign: setup ## a million random calls against the contracts
	@$(BIN)/python tests/contracts/campaign.py --calls 1000000 --jobs 2

campaign-sample: setup
	@$(BIN)/python tests/contracts/campaign.py --calls 50000 --jobs 2 --out "$$(mktemp -d)/campaign.json"

campaign-disputes: setup ## a hundred thousand games against the contract, in lockstep with its specification
	@$(BIN)/python tests/contracts/campaign_disputes.py --games 100000 --jobs 2

campaign-training: setup ## every cheat at training, a hundred seeds each, and three thousand honest runs
	@OMP_NUM_THREADS=1 $(BIN)/python tests/verify/campaign_training.py --jobs 2

campaign-inference: setup ## every cheat at inference on two models, and three thousand honest replies
	@OMP_NUM_THREADS=1 $(BIN)/python tests/verify/campaign_inference.py

campaign-economics: setup ## every way of cheating, at every rate and collusion that is claimed
	@$(BIN)/python -m minga.sim.economics_campaign

# A part of each campaign above, with other seeds; the results of the whole ones are committed.
verification-sample: setup
	@made="$$(mktemp -d)"; export OMP_NUM_THREADS=1; \
	$(BIN)/python tests/contracts/campaign_disputes.py --games 1000 --seed 1000000 --jobs 2 --out "$$made/disputes.json"; \
	$(BIN)/python -m minga.sim.economics_campaign --sample --out "$$made/economics.json"; \
	$(BIN)/python tests/verify/campaign_training.py --seeds 2 --honest 40 --first 1000000 --jobs 2 --out "$$made/training.json"

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
	@rm -rf $(VENV) .venv-peers build dist src/*.egg-info demo-report.json demo-undisturbed.json demo-dispute.json
	@rm -rf .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
