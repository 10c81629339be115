# Every target sets up what it needs; a stamp file makes the second call instant.
#   make run     the daemon on simulated data, http://127.0.0.1:8710
#   make test    all tests          make check   lint, format, types, layers
#   make bench   speed beside its peers, in one run
#   make soak    a market day under load in 24 minutes: nothing lost, the loop in time, memory level
#   make faults  kills, cuts, stalls and bad input in long counts; PART=1 to 6 for one part, each within an hour

VENV ?= .venv
STATE ?= var
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
  $(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    2>/dev/null && echo $(name))))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
SOURCES := $(wildcard */*.c */*.h)
WORKERS ?= 3
ARGS ?=
# Tests that measure how long a loop is held up: nothing else may run beside them.
ALONE := tests/feeds/test_xt_faults.py::test_whole_markets_never_stall_the_loop_for_50_ms
PART ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test check types style warm bench soak faults clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
	  echo "monitord needs Python 3.11 or newer, and none is on the PATH; name one: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml $(SOURCES) | $(BIN)/python
	$(PIP) install --prefer-binary -e .
	@touch $@

# --no-compile: of what is installed here tests import a small part. Compiling that when it is imported takes 8 s of
# processor time, all of it beforehand 35 s.
$(VENV)/dev.stamp: pyproject.toml $(SOURCES) | $(BIN)/python
	$(PIP) install --no-compile --prefer-binary -e ".[dev]"
	@$(BIN)/python -m compileall -qq $(VENV)/lib/python3*/site-packages/xtquant  # imported while a loop is watched
	@touch $@ $(VENV)/run.stamp

setup: $(VENV)/dev.stamp

run: $(VENV)/run.stamp
	exec $(BIN)/monitord run --state-dir $(STATE) --set gateway.allow_loopback_without_token=true $(ARGS)

# A run of the tests is hundreds of processes, and each would compile every module again: 0.7 s of its processor time.
test bench soak faults warm: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(ALONE)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ALONE:%=--deselect=%) $(ARGS)

check: types style

types: $(VENV)/dev.stamp
	$(BIN)/mypy

style: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# Imports all that tests import, so that it is compiled once and not by every worker: their asserts alone are 14 s of work.
warm: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest --collect-only --quiet >$(VENV)/collected || { cat $(VENV)/collected; exit 1; }

bench: $(VENV)/dev.stamp
	$(BIN)/python -m tests.bench $(ARGS)

soak: $(VENV)/dev.stamp
	$(BIN)/python -m tests.soak $(ARGS)

faults: $(VENV)/dev.stamp
	$(BIN)/python -m tests.faults $(PART)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	rm -f $(wildcard */*.so */*/*.so */*.pyd */*/*.pyd)
