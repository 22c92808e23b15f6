# What people and CI run. `make demo` and `make test` need root; `make install` does when system
# packages are missing.
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test check lint types imports generated unit firecracker integration
.PHONY: hostile compat soak pause

help:           ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install:        ## system packages and the virtual environment, where missing
	@scripts/install

demo: install   ## build the images, start everything, run the quickstart, stop everything
	@$(BIN)/python -m scripts.demo

test: check unit firecracker ## every check and test; of the long suites a smoke
	$(BIN)/python -m pytest -m "not exhaustive" tests/integration tests/compatibility tests/soak

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
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile tests/unit tests/test_style.py

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

soak: compat    ## the long suites in full, then every benchmark
	$(BIN)/python -m pytest -m exhaustive tests/integration
	EMBERBOX_SOAK_IDLE_SECONDS=1800 $(BIN)/python -m pytest tests/soak
	$(BIN)/python -m benchmarks create
	$(BIN)/python -m benchmarks density
	$(BIN)/python -m benchmarks envd
	$(BIN)/python -m benchmarks network
	$(BIN)/python -m benchmarks pause
	$(BIN)/python -m benchmarks fork
