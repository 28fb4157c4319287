# `make help` lists what there is. Needs make and Python >= 3.11; the rest is installed here.

# The system's own first: distributions build it with PGO and LTO; pyenv and a plain `configure` do
# not, and a write then costs a quarter more (docs/performance.md).
FITS   := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in /usr/bin/python3 python3; do \
  $$python -c '$(FITS)' 2>/dev/null && break; done; echo $$python)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CODE   := replicad api_gateway tests

# Where `make run` keeps its cluster; ONCE=1 ends it after the load and the check.
DIR  ?= .replicad
ONCE ?=

# Of `make bench`: all unless named, as in PARTS=writes,reads.
PARTS ?=

# Of `make bench-failover`: some 85 s each, and five minutes for the rest. `make bench` has 3.
ROUNDS ?= 10

# Of `make bench-data`: a million takes some minutes.
RECORDS ?= 1000000

# Of `make profile`; PUBLISH=1 puts its tables into docs/performance.md.
CONNECTIONS ?= 64
PUBLISH     ?=

# Of `make sim`: how many plays, or which one to tell in full.
SEEDS ?= 10000
SEED  ?=

# Of `make chaos`; SEED is that of an earlier run.
MINUTES ?= 10

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv servers tools fault-tools run test unit-tests integration-tests faults chaos test-compose bench bench-failover bench-data profile sim lint format lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(STAMP)  ## prepare .venv with the locked requirements and replicad itself

# Debian's python3 has no ensurepip; its package is the one thing that pip cannot install.
$(STAMP): requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "replicad needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; \
	  else \
	    echo "$(PYTHON) has no venv module: install it (Debian: apt-get install python3-venv)" >&2; \
	    exit 1; \
	  fi
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

servers: $(STAMP)  # RabbitMQ and ZooKeeper from Debian's packages, when missing
	@$(BIN)/replicad stack prepare

tools:  # Spin and a C compiler, for the protocol's model; from Debian's packages, when missing
	@if command -v spin && command -v gcc && [ -e /usr/include/stdio.h ]; then :; \
	  elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends spin gcc libc6-dev; \
	  else \
	    echo "install Spin and gcc (Debian: apt-get install spin gcc libc6-dev)" >&2; exit 1; \
	  fi >/dev/null

run: $(STAMP)  ## start a whole cluster and load the example forms (DIR=..., ONCE=1)
	@$(BIN)/replicad demo --dir $(DIR) $(if $(ONCE),--once)

test: lint servers tools fault-tools  ## lint, types and all tests under 20 s, on real servers
	@$(MAKE) --no-print-directory --jobs 2 --output-sync unit-tests integration-tests
	$(BIN)/python -m pytest -m "not slow" tests/faults

# The former keep one core busy, the latter mostly wait. Each tells when it has ended.
unit-tests: $(STAMP)
	$(BIN)/python -m pytest tests/unit tests/simulation tests/spec

integration-tests: $(STAMP)
	$(BIN)/python -m pytest tests/integration

fault-tools: $(STAMP)  # strace, libfiu, chromium and what else tests need, from Debian's packages
	@$(BIN)/python -m tests.support.tools

faults: $(STAMP) servers fault-tools  ## the fault tests that take 20 s or more; as root
	$(BIN)/python -m pytest -m slow

chaos: $(STAMP) servers fault-tools  ## overlapping random faults under load (MINUTES=10, SEED=n)
	@$(BIN)/python -m tests.faults.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

test-compose: $(STAMP)  ## the integration tests against `docker compose up`
	@tests/compose/run.sh $(BIN)/python

sim: $(STAMP)  ## play a simulated cluster (SEEDS=10000), or tell the story of SEED=n
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

bench: ROUNDS = 3
bench: $(STAMP) servers  ## compare with etcd and PostgreSQL, write docs/benchmarks (PARTS=..., ROUNDS=3)
	$(BIN)/python -m tests.benchmarks.compare --rounds $(ROUNDS) --records $(RECORDS) \
	  $(if $(PARTS),--parts $(PARTS)) --publish

bench-failover: $(STAMP) servers  ## measure failovers beside etcd and recoveries (ROUNDS=10)
	$(BIN)/python -m tests.benchmarks.failover --rounds $(ROUNDS)

bench-data: $(STAMP) servers  ## measure imports, queries and exports (RECORDS=1000000)
	$(BIN)/python -m tests.benchmarks.data --records $(RECORDS)

profile: $(STAMP) servers  ## where the time of writes goes: flame graphs (CONNECTIONS=64)
	$(BIN)/python -m tests.benchmarks.profile --connections $(CONNECTIONS) $(if $(PUBLISH),--publish)

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)

format: $(STAMP)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## make requirements.lock anew from setup.cfg
	$(PYTHON) -m venv --clear .lock-venv
	.lock-venv/bin/python -m pip install --quiet pip-tools
	.lock-venv/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	  --all-build-deps --extra dev --no-emit-index-url --no-emit-find-links --no-header \
	  --annotation-style line --output-file requirements.lock setup.cfg
	rm -rf .lock-venv

clean:  ## remove what make and the tools made; the cluster's data in DIR stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build ./*.egg-info
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +
