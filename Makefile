# make demo      set everything up and run the main job on a simulated ticket log
# make test      set everything up and pass the tests
# make check     lint, types, imports
# make sanitize  the laws of the compiled kernels, with every memory access checked
# make bench     measure again: simulated tickets, ten million events, the kernels against their
#                peers, memories on problems with known answers, what the checks find, weights in
#                other systems, and the public data sets where HIDDENSTATE_DATA names their folder;
#                writes docs/results
# make docs      write the pages that are made from the code
# PIP_OPTIONS    is handed to pip, for example to name another package index

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_OPTIONS ?=
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_OPTIONS)

# What an installation is made from; Python files are used where they lie.
INSTALLED_FROM := pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/hiddenstate/kernels/csrc/*)
TELL := .venv/bin/python -c 'from hiddenstate.kernels import native; print(native.status())'

# For working on it: a build folder that is kept, so that only what changed is compiled again, and
# build tools that stay where they are, or CMake would begin anew. Warnings are errors, and where
# there is a compiler a failed build is a failure, not an installation without the kernels.
BUILD_TOOLS := cmake nanobind ninja scikit-build-core
BUILD := --no-build-isolation -C build-dir=build/dev -C cmake.define.HIDDENSTATE_STRICT=ON
COMPILER := $(shell command -v $(CXX))
SANITIZED := $(wildcard tests/laws/test_native*.py) tests/laws/test_scan.py tests/laws/test_scan_lengths.py

.PHONY: demo test check sanitize bench docs clean

# Whoever has set up the tests needs no second installation for the demo.
demo: $(firstword $(wildcard .venv/installed-dev) .venv/installed-train)
	.venv/bin/hiddenstate demo --out demo --overwrite

# Files of tests are shared out to as many processes as there are processors, each of one thread.
test: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

check: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# AddressSanitizer has to be loaded before Python, and the C++ library before it is asked for its
# throw. Leaks are not looked for: Python and NumPy keep memory until they end on purpose.
# PYTHONMALLOC: each object from malloc, which the sanitizer guards, not from Python's arenas. The
# report is written past Python, so pytest must not catch what is written to file descriptor 2.
# Left out: a law of memory use, and laws of torch's compiler, which take minutes and touch no other
# line of ours.
sanitize: .venv/installed-dev
	.venv/bin/cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=None \
		-DCMAKE_MAKE_PROGRAM=$(CURDIR)/.venv/bin/ninja -DPython_EXECUTABLE=$(CURDIR)/.venv/bin/python \
		-Dnanobind_DIR="$$(.venv/bin/python -m nanobind --cmake_dir)" \
		-DHIDDENSTATE_SANITIZE=ON -DHIDDENSTATE_STRICT=ON
	.venv/bin/cmake --build build/sanitize
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		.venv/bin/python -m pytest --capture=sys -p tests.sanitized $(SANITIZED) \
		-k 'not kept_is_freed and not compiled_is_eager and not opcheck'

bench: .venv/installed-bench
	.venv/bin/python -m benchmarks.simulator
	.venv/bin/python -m benchmarks.large
	.venv/bin/python -m benchmarks.kernels
	.venv/bin/python -m benchmarks.memories
	.venv/bin/python -m benchmarks.tracing
	.venv/bin/python -m benchmarks.watching
	.venv/bin/python -m benchmarks.diagnose
	.venv/bin/python -m benchmarks.interop
	test -z "$(HIDDENSTATE_DATA)" || for name in next_event language translation labels series speed investigation; \
		do .venv/bin/python -m benchmarks.$$name || exit 1; done

docs: .venv/installed-dev
	.venv/bin/python -m docs.generate
	.venv/bin/python -m benchmarks.wrong_inputs

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "hiddenstate needs Python 3.11 or newer; none was found. \
	Install one, or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed-train: $(INSTALLED_FROM) | .venv/bin/python
	$(PIP) -e '.[train]'
	@$(TELL)
	@touch $@

.venv/installed-dev: $(INSTALLED_FROM) | .venv/bin/python
	$(PIP) $(BUILD_TOOLS)
	HIDDENSTATE_NEEDS_COMPILED=$(if $(COMPILER),1) $(PIP) $(BUILD) -e '.[dev]'
	@$(TELL)
	@touch $@

.venv/installed-bench: .venv/installed-dev
	HIDDENSTATE_NEEDS_COMPILED=$(if $(COMPILER),1) $(PIP) $(BUILD) -e '.[dev,bench,interop]'
	@touch $@
