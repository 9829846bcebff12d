# Each target sets itself up: it needs Python 3.11 or newer, git and make, nothing else.
PYTHON ?= python3
VENV := .venv
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: repro test lint bench setup

repro: $(VENV)/.installed  ## run every stage whose inputs changed
	$(IN_VENV) dvc repro

test: lint  ## the linters, then the tests
	$(IN_VENV) pytest

lint: $(VENV)/.installed-test
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .

bench: $(VENV)/.installed-bench  ## what each setting saves, against the course; writes benchmarks/README.md
	$(IN_VENV) python -m benchmarks

setup: $(VENV)/.installed-test  ## everything a developer needs

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check --constraint constraints.txt .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(VENV)/bin/pip install --disable-pip-version-check --constraint constraints.txt '.[test]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(VENV)/bin/pip install --disable-pip-version-check --constraint constraints.txt '.[bench]'
	@touch $@
