# Every target builds .venv when it is missing or out of date. Another Python: make test PYTHON=python3.12
PYTHON ?= python3

BIN := .venv/bin
READY := .venv/.installed
# The demo needs few packages; a full install serves it as well.
DEMO_READY := $(if $(wildcard $(READY)),$(READY),.venv/.installed-demo)

QUICK := not slow and not gpu and not judges and not browser and not network
HERE := not gpu and not judges and not network
LOAD := abandoned overload memory rude seeds

# Tests start the program hundreds of times; without compiled files each start compiles it anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo quick test judges fuzz check lint types docs docs-check bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO_READY) ## see it work: the small install, then gpt2 demo
	$(BIN)/gpt2 demo

quick: lint types ## lint, types and the fast tests; under a minute
	$(BIN)/python -m pytest -q -x -n 2 -m '$(QUICK)'

test: $(READY) ## every test that this machine can run
	$(BIN)/python -m pytest -n 2 --dist loadfile -m '$(HERE)'

judges: $(READY) ## other people's programs on what we write; needs python3.11 and 4 GB for them
	$(BIN)/python -m pytest -m judges tests/judges

fuzz: $(READY) ## damage files of every format 100,000 times each, ask a server 50,000 things; takes an hour
	GPT2KIT_FUZZ=100000 $(BIN)/python -m pytest -q tests/attacks
	GPT2KIT_FUZZ=50000 $(BIN)/python -m pytest -q tests/serve/test_schemathesis.py

check: lint types docs-check test ## all that must hold before a change goes in

lint: $(READY) ## ruff: rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict on src
	$(BIN)/mypy

docs: $(READY) ## write the generated pages of docs/
	$(BIN)/python docs/generate.py

docs-check: $(READY) ## fail if a generated page is out of date
	$(BIN)/python docs/generate.py --check

bench: $(READY) ## run every benchmark; takes long
	@failed=; \
	for script in benchmarks/bench_*.py $(LOAD:%=benchmarks/load/%.py); do \
	    [ -e "$$script" ] || continue; \
	    echo "== $$script"; \
	    $(BIN)/python "$$script" || failed="$$failed $$script"; \
	done; \
	echo "Copy these outputs into benchmarks/RESULTS.md, each with its date, machine and command."; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

clean: ## remove caches and built files; keeps .venv, models and checkpoints
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml compat/gpt_2_simple/pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing gpt2kit[all,dev] into .venv; the first time takes minutes'
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all,dev]' -e compat/gpt_2_simple
	@touch $@

.venv/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing gpt2kit[train,tokenizers] into .venv; the first time takes minutes'
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,tokenizers]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "$(PYTHON) not found. On Debian: apt-get install python3 python3-venv python3-pip git make g++"; \
	    echo "Elsewhere: install Python 3.11 or newer, or name it: make PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "gpt2kit needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	    echo "Name a newer one: make PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3-venv python3-pip"; exit 1; } >&2
	$(PYTHON) -m venv .venv
