# make run [ARGS="in=http"]   installs into .venv what is missing, then starts dynemo-run
# make quick                  runs the tests that start no process: no server, no engine
# make test [ARGS="-n 0"]     runs all tests, in parallel unless ARGS says -n 0 or names files alone
#                             (both install what the tests need)
# make engines                installs vLLM and SGLang for the tests (5 GB); without, those are skipped
# make clients                installs API clients for the tests (600 MB); without, those are skipped
# make lint | types | bench | demo-model
# make chaos | soak | fuzz    runs a pool under faults, a pool under mixed load, or readers with bad data;
#                             ARGS="--minutes 3 --seed 7"
# make audit                  checks the locked packages for known vulnerabilities; needs the internet

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
ARGS ?=
# The files and folders whose texts `make lint` checks. Add to them what passes.
PROSE := $(wildcard *.md) docs bench tools src tests
# Network namespaces are Linux's, and root's.
NETNS := $(shell [ "$$(uname)$$(id -u)" = Linux0 ] && echo ip=iproute2)

.PHONY: run quick test chaos soak fuzz engines clients lint types bench demo-model audit clean

run: .venv/ready-run
	@$(BIN)/dynemo-run $(ARGS)

quick: .venv/ready-test
	@$(BIN)/python -m pytest -n auto -m "not processes" $(ARGS)

test: .venv/ready-test
	@$(BIN)/python -m pytest -n auto $(ARGS)

chaos soak fuzz: .venv/ready-test
	@PYTHONPATH=tests $(BIN)/python -m stress $@ $(ARGS)

engines: .venv/ready-engines

clients: .venv/ready-clients

lint: .venv/ready-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tools/prose.py $(PROSE)

types: .venv/ready-test
	@$(BIN)/mypy

bench: .venv/ready-bench
	@$(BIN)/python -m bench $(ARGS)

demo-model:
	@tools/demo_model/build.sh

audit: .venv/ready-test
	@$(PIP) pip-audit </dev/null >&2
	@for lock in dev bench; do $(BIN)/python -m pip_audit --strict --disable-pip --require-hashes \
		--requirement tools/locks/$$lock.txt || exit 1; done
	@for set in src/dynemo/environments/*/*.txt; do $(BIN)/python -m pip_audit --disable-pip --no-deps \
		--requirement $$set || exit 1; done

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache

# Standard output belongs to the answer and standard input to the prompt: no installer touches them.
.venv/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "dynemo-run needs Python 3.11 or newer; install it, or name one: make run PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "Making .venv with $(PYTHON) ..." >&2
	@$(PYTHON) -m venv .venv </dev/null >&2 || { rm -rf .venv; \
		echo "Python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

.venv/ready-run: pyproject.toml tools/locks/run.txt | .venv/bin/python
	@echo "Installing dynemo-run into .venv (once, about 200 MB) ..." >&2
	@$(PIP) --require-hashes --requirement tools/locks/run.txt </dev/null >&2
	@$(PIP) --no-deps --no-build-isolation --editable . </dev/null >&2
	@$(BIN)/python -m compileall -q src
	@touch $@

.venv/ready-test: tools/locks/dev.txt .venv/ready-run
	@echo "Installing what the tests need ..." >&2
	@tools/system-packages chromium=chromium chromedriver=chromium-driver etcd=etcd-server \
		nginx=nginx-light $(NETNS) </dev/null >&2
	@$(PIP) --require-hashes --requirement tools/locks/dev.txt </dev/null >&2
	@touch $@

# Into a folder of this checkout's, where tests/conftest.py looks for them.
.venv/ready-engines: $(wildcard src/dynemo/environments/*/cpu.txt) | .venv/ready-test
	@for name in vllm sglang; do \
		XDG_DATA_HOME="$(CURDIR)/.venv/data" $(BIN)/dynemo-run engine install $$name --device cpu \
			</dev/null >&2 || exit 1; done
	@touch $@

.venv/ready-clients: tools/clients.py tools/locks/clients.txt tools/locks/clients-llama-index.txt | .venv/ready-test
	@echo "Installing the clients that the tests run ..." >&2
	@$(BIN)/python tools/clients.py clients clients-llama-index </dev/null >&2
	@touch $@

.venv/ready-bench: tools/locks/bench.txt .venv/ready-run
	@tools/system-packages etcd=etcd-server </dev/null >&2 || echo "The rows of a pool are left out." >&2
	@$(PIP) --require-hashes --requirement tools/locks/bench.txt </dev/null >&2
	@touch $@
