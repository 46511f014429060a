# `make demo` and `make test` do their own set-up; `make setup` is the part they share.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PYTEST_ARGS ?=

.PHONY: setup system demo test lint lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	scripts/system-packages python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

# Peers and tools of the tests; needs root, without it the tests say what is missing.
system:
	scripts/system-packages test
	scripts/wolfssl || echo "note: wolfSSL could not be built (the tests that need it say so)" >&2

demo: setup
	$(BIN)/vitalgate demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup system lint
	$(BIN)/pytest $(PYTEST_ARGS)

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools
	scripts/lock $(VENV)-lock/bin/pip-compile

clean:
	rm -rf $(VENV) $(VENV)-lock .peers build dist .pytest_cache .mypy_cache .ruff_cache
