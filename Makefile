# Each target installs what it needs. Requires only Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
# uv takes a third of pip's time. It gets pip's indexes and links from the environment, but does not read pip.conf: with
# settings there, use `make INSTALLER=pip`. If uv fails, pip installs.
INSTALLER ?= uv
PIP_INSTALL = $(VENV)/bin/pip install --no-compile --constraint constraints.txt --editable
ifeq ($(INSTALLER),uv)
UV_INSTALL = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$PIP_INDEX_URL}" UV_INDEX="$${UV_INDEX:-$$PIP_EXTRA_INDEX_URL}" \
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(echo $$PIP_FIND_LINKS | tr ' ' ,)}" $(VENV)/bin/uv pip install \
	$${PIP_EXTRA_INDEX_URL:+--index-strategy unsafe-best-match} --python $(VENV) --constraint constraints.txt --editable
else
UV_INSTALL = false
endif
# The installers compile nothing, which saves a minute; Python must then keep what it compiles.
IN_VENV := PYTHONDONTWRITEBYTECODE= PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
# More processes than cores, because many tests wait for other processes. torch has one thread in each of them, as more
# would wait for each other, and threads must not spin while they wait for a core.
PYTEST = $(IN_VENV) OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 pytest -n 4

.PHONY: repro demo verify test test-all test-fast coverage lint presets bench setup help

repro: $(VENV)/.installed  ## run the stages whose inputs changed
	$(IN_VENV) sh -c 'python -m stages.check && dvc repro'

demo: $(VENV)/.installed-demo  ## open a web page on this machine: try the model, listen to the clips, see errors
	$(IN_VENV) python -m tools.page

verify: $(VENV)/.installed  ## train and evaluate the last commit again, in a copy: the same result?
	$(IN_VENV) python -m tools.reproduce

test: lint  ## run the linters and the tests
	$(PYTEST) -m 'not rare'

test-all: lint  ## run the linters and all tests, also those with the mark rare
	$(PYTEST)

test-fast: lint  ## run the linters and the fast tests
	$(PYTEST) -m 'not slow and not rare'

coverage: $(VENV)/.installed-test  ## run the tests and measure the share of the code that they run; slower than test
	$(PYTEST) --cov

lint: $(VENV)/.installed-test  ## run ruff and mypy
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy

presets: $(VENV)/.installed  ## write presets/ and docs/params.md from stages/*/params.py
	$(IN_VENV) python -m tools.presets

bench: $(VENV)/.installed-bench  ## measure the speed against the course's code; write benchmarks/README.md
	$(IN_VENV) python -m benchmarks

setup: $(VENV)/.installed-test  ## install what a developer needs

help:  ## print this list
	@awk -F ':.*##  *' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	-$(VENV)/bin/pip install --disable-pip-version-check --no-compile --constraint constraints.txt --only-binary uv --upgrade pip uv
	$(UV_INSTALL) . || $(PIP_INSTALL) .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(UV_INSTALL) '.[ray,test]' || $(PIP_INSTALL) '.[ray,test]'
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.installed
	$(UV_INSTALL) '.[demo]' || $(PIP_INSTALL) '.[demo]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(UV_INSTALL) '.[bench]' || $(PIP_INSTALL) '.[bench]'
	@touch $@
