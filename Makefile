# What people and CI run. `make demo` and `make test` need root; `make install` does when system
# packages are missing.
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test alone machines check lint types imports generated unit
.PHONY: firecracker integration hostile compat conformance cluster leaks faults fuzz pause soak

# Tests wait more than they compute, so that three keep two cores busy.
PARALLEL := -n 3 --dist loadfile

help:           ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install:        ## system packages and the virtual environment, where missing
	@scripts/install

demo: install   ## build the images, start everything, run the quickstart, stop everything
	@$(BIN)/python -m scripts.demo

# Tests with machines leave a third of two cores idle; the others take it, and give way.
test: install   ## every check and test; of the long suites a smoke
	@$(MAKE) --no-print-directory --jobs 2 --keep-going alone machines

alone: check    # what needs nothing of the machine but itself
	nice -n 5 $(BIN)/python -m pytest -m "not exhaustive" $(PARALLEL) tests/unit \
		tests/test_style.py tests/conformance

machines: install # what makes VMs and networks: no two at a time
	$(BIN)/python -m pytest -m "not exhaustive" tests/faults tests/firecracker \
		tests/integration tests/compatibility tests/soak
	$(BIN)/python -m pytest -m "not exhaustive" tests/cluster

check: lint types imports generated

lint: install   ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy
	$(BIN)/mypy

imports: install ## the direction of imports
	$(BIN)/lint-imports

generated: install ## code generated from proto/ and from the async SDK
	scripts/generate --check
	$(BIN)/python scripts/unasync.py --check

unit: install   ## the fast tests
	$(BIN)/python -m pytest -m "not exhaustive" $(PARALLEL) tests/unit tests/test_style.py

firecracker: install ## the Firecracker driver against a stand-in, as root; its coverage
	$(BIN)/python -m pytest -n auto --maxprocesses 2 --cov=emberbox.orchestrator.machines.firecracker \
		--cov-report=term-missing:skip-covered --cov-fail-under=95 tests/firecracker

integration: install ## the tests with real VMs and networks, as root
	$(BIN)/python -m pytest -m "not exhaustive" tests/integration

hostile: install ## a guest that is root attacks all around it, and what its network is to do
	$(BIN)/python -m pytest tests/integration/hostile tests/integration/network

pause: install  ## pausing: every crash, every upgrade, all that goes on in a sandbox
	$(BIN)/python -m pytest $(wildcard tests/integration/vm/test_*pause*.py) tests/integration/vm/test_checkpoint.py

compat: export EMBERBOX_COMPAT_RESULTS := $(CURDIR)/.compat/results.jsonl
compat: install ## the official SDKs against emberbox up, and the table of what works
	@mkdir -p .compat && rm -f $(EMBERBOX_COMPAT_RESULTS)*
	$(BIN)/python -m pytest tests/compatibility; tests=$$?; \
	$(BIN)/python -m scripts.compat_table && exit $$tests

conformance: install ## HTTP by the byte through both proxies, and workers that are killed
	$(BIN)/python -m pytest tests/conformance

cluster: install ## many programs on one machine, killed at random (EMBERBOX_CLUSTER_SECONDS=180)
	$(BIN)/python -m pytest -o log_cli=true -o log_cli_level=INFO tests/cluster

leaks: export EMBERBOX_LEAK_CYCLES ?= 1000
leaks: install  ## sandboxes come and go, 1,000 times: nothing is left, no memory grows
	$(BIN)/python -m pytest tests/integration/vm/test_leaks.py

faults: export EMBERBOX_FAULT_ROUNDS ?= 40
faults: install ## programs are killed, machines break, hosts run out of things: nothing is lost
	$(BIN)/python -m pytest -s tests/faults

fuzz: export EMBERBOX_FUZZ_EXAMPLES ?= 300
fuzz: export EMBERBOX_FUZZ_SECONDS ?= 300
fuzz: install   ## requests, frames and paths that nobody would write
	$(BIN)/python -m pytest -n auto tests/unit/api_server/test_schema.py \
		tests/unit/api_server/test_keeper_machine.py tests/unit/envd/test_fuzz.py
	$(BIN)/python -m pytest -s tests/conformance/test_fuzz.py

soak: install   ## the long suites in full, then every benchmark; the report is .soak/report.md
	$(BIN)/python -m scripts.soak
