# Two commands: `make run` and `make test`; both make .venv first. ARGS="…" passes overrides or options on.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# pip compiles nothing, because two modules in three are never imported. The others Python compiles on their first import, and the
# export below has it keep the result even where the environment forbids it.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test tests test-slow lint bench clean

run: .venv/ready
	$(BIN)/python -m ltl.run $(ARGS)

test: lint tests

tests: .venv/ready
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict conf

bench: .venv/ready
	$(BIN)/python tests/bench.py $(ARGS)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ltl needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(INSTALL) torch
	$(INSTALL) --editable '.[sweep,dashboards,dev]'
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
