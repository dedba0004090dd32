# Juinie. `make help` lists what can be done; CI and the README call the same targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Modules are compiled once, not at each start: a service then starts in half the time.
unexport PYTHONDONTWRITEBYTECODE
MEMBERS := $(wildcard services/*/pyproject.toml libs/*/pyproject.toml clients/*/pyproject.toml)
MEMBER_DIRS := $(patsubst %/pyproject.toml,./%,$(MEMBERS))
PYTHON := .venv/bin/python
BIN := .venv/bin
# uv, where it is installed and works; otherwise one of our own.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .juinie/tools/bin/uv)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# ---- install -------------------------------------------------------------------------------------------------------

.juinie/tools/bin/uv:
	@echo "installing uv into .juinie/tools"
	@python3 -m venv .juinie/tools
	@.juinie/tools/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"

# One at a time, also where two targets are made at once; what was broken off before is made anew.
.venv/installed: requirements.lock pyproject.toml $(MEMBERS) | $(filter-out uv,$(UV))
	@mkdir -p .juinie; exec 9>.juinie/install.lock; ! command -v flock >/dev/null || flock 9; \
	[ -x $(PYTHON) ] || $(UV) venv --quiet --clear .venv; \
	export VIRTUAL_ENV=.venv; \
	$(UV) pip install --quiet --require-hashes -r requirements.lock; \
	$(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(MEMBER_DIRS)); \
	touch $@

.PHONY: install
install: .venv/installed ## Install everything into .venv, by the lock and its hashes

.PHONY: lock
lock: | $(filter-out uv,$(UV)) ## Resolve again: uv.lock (kept out of git) and requirements.lock
	@$(UV) lock --quiet
	@$(UV) export --quiet --all-packages --all-groups --no-emit-workspace --no-header --format requirements-txt -o requirements.lock >/dev/null

# ---- the stack -----------------------------------------------------------------------------------------------------

STANDALONE = $(PYTHON) -m juinie_standalone

.PHONY: up down status logs restart key
up: .venv/installed ## Start the whole stack, embedded: no Docker, no Java needed
	@$(STANDALONE) up
down: .venv/installed ## Stop it; its data stay in .juinie/data
	@$(STANDALONE) down
status: .venv/installed ## Show what runs
	@$(STANDALONE) status
logs: .venv/installed ## Follow the services' logs
	@$(STANDALONE) logs
restart: .venv/installed ## Restart one service, also a dead one: make restart SERVICE=api
	@$(STANDALONE) restart $(SERVICE)
key: .venv/installed ## Make an API key: make key TENANT=other SCOPES=read,write
	@$(STANDALONE) key --tenant "$(or $(TENANT),dev)" --scopes "$(or $(SCOPES),read$(comma)write)"

.PHONY: demo
demo: .venv/installed ## A real agent framework's run, token by token, with a watcher that drops and returns
	@$(PYTHON) examples/agent_run.py

# ---- what a change must pass ---------------------------------------------------------------------------------------

# Without ruff's cache: a module that has come or gone changes how imports sort elsewhere, which the cache misses.
.PHONY: check
check: .venv/installed ## Format, lint, types, imports, lock, names, secrets, known vulnerabilities, counters
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(PYTHON) deploy/check_tree.py
	@$(PYTHON) deploy/secret_scan.py
	@$(PYTHON) deploy/audit.py
	@$(PYTHON) bench counters

.PHONY: format
format: .venv/installed ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# In the order of testpaths: xdist's own, by the number of tests in a file, has the longest at the end, in files of one test.
.PHONY: test
test: .venv/installed ## Everything: unit, contract, end to end; nothing skipped
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# SECONDS is bash's own, too: only one that was given to make counts. One run's figures are kept, whatever they are.
FAULT_SECONDS := $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),300)
FAULTS = $(PYTHON) tests/faults

.PHONY: test-faults faults-report
test-faults: .venv/installed ## Everything broken under load, and checked: make test-faults SECONDS=300 SEED=1 (or RECONNECTS=100000)
	@$(FAULTS) run --seconds $(FAULT_SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(RECONNECTS),--reconnects $(RECONNECTS)) $(if $(LATE),--late $(LATE)) $(if $(SLACK),--slack $(SLACK))
faults-report: .venv/installed ## All that was kept of make test-faults, added up
	@$(FAULTS) report
.PHONY: fuzz test-rolling
fuzz: .venv/installed ## Fuzz both HTTP ports and the stream: make fuzz CASES=50000 SEED=1
	@JUINIE_FUZZ_CASES=$(or $(CASES),50000) JUINIE_FUZZ_SEED=$(or $(SEED),1) $(BIN)/pytest -s tests/fuzz
test-rolling: .venv/installed ## Rolling restarts of every service under load: make test-rolling RESTARTS=20 SEED=1
	@JUINIE_TEST_RESTARTS=$(or $(RESTARTS),20) JUINIE_TEST_SEED=$(or $(SEED),1) $(BIN)/pytest -s tests/lifecycle/test_rolling_restarts.py

# One service alone, with its part of the lock and nothing else. The venv is synced, so what the lock drops goes.
SERVICES := $(patsubst services/%/pyproject.toml,%,$(wildcard services/*/pyproject.toml))
CONTRACT_SERVICE := $(and $(filter 1,$(words $(SERVICE))),$(filter $(SERVICES),$(SERVICE)))

.venvs/contract-%/installed: requirements.lock deploy/lock.py $(MEMBERS) | $(filter-out uv,$(UV))
	@[ -x $(@D)/bin/python ] || $(UV) venv --quiet --clear $(@D)
	@$(@D)/bin/python deploy/lock.py juinie-$* juinie-testkit hatchling editables > $(@D)/needs.txt
	@VIRTUAL_ENV=$(@D) $(UV) pip sync --quiet --require-hashes $(@D)/needs.txt
	@VIRTUAL_ENV=$(@D) $(UV) pip install --quiet --no-deps --no-build-isolation \
	  -e ./services/$* -e ./libs/shared -e ./libs/standalone -e ./libs/testkit
	@touch $@

.PHONY: test-contract no-such-service
test-contract: $(if $(CONTRACT_SERVICE),.venvs/contract-$(SERVICE)/installed,no-such-service) ## One service's contract tests, with only its dependencies: make test-contract SERVICE=api
	@.venvs/contract-$(SERVICE)/bin/python -m pytest -n 3 --dist loadfile services/$(SERVICE)/tests/contract
no-such-service:
	$(error SERVICE is one of: $(SERVICES); not "$(SERVICE)")

# Each path alone and all together, some fifteen minutes; on a machine that does nothing else. All samples are kept, a line of JSON for each.
comma := ,
BENCH = $(PYTHON) bench --json .juinie/bench/results.jsonl --rounds $(or $(ROUNDS),3)
.PHONY: bench
bench: .venv/installed ## What the hot paths cost, beside their floors and a peer: make bench ROUNDS=5
	@$(BENCH) append --events 1 --requests 3000
	@$(BENCH) append --events 20 --requests 1000
	@$(BENCH) relay --events 1 --requests 10000
	@$(BENCH) relay --events 10 --requests 2000
	@$(BENCH) fan-out --runs 1 --watchers 1000
	@$(BENCH) fan-out --runs 1000 --watchers 1 --rate 20000 --linger 0$(comma)0.01
	@$(BENCH) storm --only reads$(comma)reconnects --watchers 1000
	@$(BENCH) latency --seconds 5
	@$(BENCH) overhead --seconds 5
	@$(PYTHON) bench plot .juinie/bench/results.jsonl --into .juinie/bench

.PHONY: bench-growth bench-storm bench-steady
bench-growth: .venv/installed ## What an event and a watcher cost when there is more of everything: make bench-growth STORED=0,1000000,10000000
	@$(BENCH) growth --stored $(or $(STORED),0$(comma)1000000)
bench-storm: .venv/installed ## What storms cost, and what others feel of them: make bench-storm WATCHERS=10000
	@$(BENCH) storm --watchers $(or $(WATCHERS),1000)
bench-steady: .venv/installed ## Whether memory, tasks, descriptors and latencies stay as they are under a steady load: make bench-steady MINUTES=30
	@$(BENCH) steady --minutes $(or $(MINUTES),30)

.PHONY: compose-smoke
compose-smoke: .venv/installed ## The stack from images: build, start, walk a run, kill and restart parts, take it down
	@$(PYTHON) deploy/compose_smoke.py

# Written beside and moved, so that a generator that fails leaves the document as it was.
generate = $(PYTHON) $(2) > .venv/$(1).new && mv .venv/$(1).new docs/reference/$(1)

.PHONY: docs
docs: .venv/installed ## Write the generated documents: OpenAPI, AsyncAPI, settings
	@$(call generate,openapi.json,-m juinie_api openapi)
	@$(call generate,asyncapi.json,-m juinie_publisher asyncapi)
	@$(call generate,settings.md,docs/generate.py settings)
