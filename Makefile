# make demo    set everything up and run the main job on a simulated ticket log
# make test    set everything up and pass the tests
# make check   lint, types, imports
# make bench   measure again: simulated tickets, ten million events, and the public logs where
#              HIDDENSTATE_DATA names their folder; writes docs/results
# make docs    write the pages that are made from the code
# PIP_OPTIONS  is handed to pip, for example to name another package index

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_OPTIONS ?=
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_OPTIONS)

.PHONY: demo test check bench docs clean

demo: .venv/installed-train
	.venv/bin/hiddenstate demo --out demo --overwrite

test: .venv/installed-dev
	.venv/bin/python -m pytest

check: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/installed-dev
	.venv/bin/python -m benchmarks.simulator
	.venv/bin/python -m benchmarks.large
	test -z "$(HIDDENSTATE_DATA)" || .venv/bin/python -m benchmarks.next_event

docs: .venv/installed-dev
	.venv/bin/python -m docs.generate
	.venv/bin/python -m benchmarks.wrong_inputs

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "hiddenstate needs Python 3.11 or newer; none was found. \
	Install one, or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed-train: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[train]'
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[dev]'
	@touch $@
